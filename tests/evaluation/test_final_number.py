"""The result of an answer to a word problem: what models write around it, and where lm-eval's own filters agree."""

from __future__ import annotations

import random
import re
from decimal import Decimal
from pathlib import Path

import lm_eval
import pytest
import yaml

from pipelines.evaluation.suites.final_number import final_number

RESULTS = {
    # The mark of the data set, with what Markdown and currencies add.
    "#### $5.50": "5.5",
    "#### \\$5": "5",
    "#### **42**": "42",
    "**#### 42**": "42",
    "#### 42 dollars": "42",
    "#### 42 (as 6 \u00d7 7)": "42",
    "#### 5 * 3 = 15": "15",
    "####\n42": "42",
    # Headings of Markdown are no marks.
    "#### 1. Eggs\n3 + 5 = 8\n#### 2. Price\n8 * 2 = 16\nShe earns 16 dollars.": "16",
    "#### 2) Add\nthat makes 20": "20",
    "#### 3 - Costs\nso 40": "40",
    "#### Step 2\n4\n\n**Answer:** 10": "10",
    "#### Final Answer\n\n**42**": "42",
    "### Step 3: 99 in all\nTwelve are left: 12": "12",
    "##### 5\nAnswer: 6": "6",
    # Minus signs, thousands, currencies.
    "#### \u22127": "-7",
    "it is \u20137 degrees": "-7",
    "a loss of -\\$1,200.00": "-1200",
    "that leaves $-5": "-5",
    "from 10-5 to $5-$10": "10",
    "about 1\u202f234 francs": "1234",
    "about 1'234 francs": "1234",
    "1,23,456 rupees": "123456",
    "the ages are 3,4": "4",
    "\uff14\uff12": "42",
    "\u7b54\u6848\u662f42\u4e2a": "42",
    # LaTeX.
    r"\boxed{\$1{,}234}": "1234",
    r"\boxed{1\,234\text{ dollars}}": "1234",
    r"$\boxed{x = 42}$ after 3 steps": "42",
    r"\boxed{\text{42}}": "42",
    r"\boxed{\frac{3}{4}}": "0.75",
    r"\boxed{-\$5} and 6": "-5",
    r"the answer is $\$18$ a day": "18",
    r"the answer is \(42\), which took 3 steps": "42",
    # Sentences.
    "**Answer:** 18 (see step 3)": "18",
    "The answer is: **\\$18**, by step 3": "18",
    "Answer\n9": "9",
    "The answer is 5 + 3 = 8, of 10": "8",
    "The answer to the question of 3 parts is 7, not 9": "7",
    "The answer is therefore 12, in 3 steps": "12",
    "She must answer 3 questions. In total she has 15.": "15",
    "The answer is not 5 but 6": "6",
    "__42__": "42",
    "42 %": "42",
    "no number, no2, v1.2": None,
}


@pytest.mark.parametrize("answer", RESULTS)
def test_the_result_is_found(answer: str) -> None:
    expected = RESULTS[answer]
    assert final_number(answer) == (None if expected is None else Decimal(expected))


def filters_of_lm_eval() -> list[tuple[re.Pattern[str], int]]:
    """The patterns of lm-eval's two filters, and which of their matches each takes."""
    file = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
    steps = [entry["filter"][0] for entry in yaml.safe_load(file.read_text())["filter_list"]]
    return [(re.compile(step["regex_pattern"]), step.get("group_select", 0)) for step in steps]


def found_by(pattern: re.Pattern[str], select: int, answer: str) -> Decimal | None:
    matches = pattern.findall(answer)
    if not matches:
        return None
    match = matches[select]
    text = next(part for part in match if part) if isinstance(match, tuple) else match
    text = text.replace(",", "").replace("$", "").rstrip(".")
    return Decimal(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None


def test_where_the_filters_of_lm_eval_agree_the_result_is_theirs() -> None:
    filters = filters_of_lm_eval()
    draw = random.Random(0)
    agreed = 0
    for _ in range(400):
        number = draw.choice([draw.randint(-99, 99), draw.randint(1000, 9_999_999), draw.randint(1, 9999) / 4])
        work = draw.choice(
            ["", "First 3 + 4 = 7.\n", "- 12 eggs\n- 5 boxes\n", "**Step 1:** $8 * 2 = $16\n", "x = 5-2\n"]
        )
        ending = draw.choice(["#### {}", "So it is #### {}", "Answer: {0}\n#### {0}", "#### {}.", "#### ${:,}"])
        answer = work + ending.format(number)
        theirs = {found_by(*each, answer) for each in filters}
        if len(theirs) == 1 and None not in theirs:
            agreed += 1
            assert {final_number(answer)} == theirs, answer
    assert agreed > 200


@pytest.mark.parametrize("part", ["#### (", "answer is *", "1,", r"\boxed{", "answer to a ", "1+", " \t*", "-", "$"])
def test_a_long_answer_without_end_is_read(part: str) -> None:
    # Patterns that try every split of a text would take hours over these.
    final_number("answer is " + part * 4000)
