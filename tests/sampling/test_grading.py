"""Grades of samples: what is compared of an answer, what is right, and what the artifact says of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from data_registry.core.errors import ConfigError, InputError, Preempted
from data_registry.prepared import load_prepared
from data_registry.testbed import MODEL_DIR
from data_registry.testbed.pools import rows as pool_rows
from pipelines.commands import sample
from pipelines.configs.sample import SampleConfig
from pipelines.core.config import resolve
from pipelines.evaluation.answering import asking
from pipelines.evaluation.answering.sampling import seed_of
from pipelines.sampling.grading import Grader
from tests.preparing.small_sources import prepare

AFTER = "The answer is"

EXACT = [
    ("Paris", "paris", True),
    ("Paris.", " PARIS ", True),
    ("31 .", "31", True),
    ("a\n  b\tc", "a b c", True),
    ("**Paris**.", "Paris", True),
    ("stra\u00dfe", "STRASSE", True),  # upper and lower case of Unicode
    ("\ufb01ne", "fine", True),  # a ligature
    ("\uff14\uff12", "42", True),  # digits of full width
    ("caf\u00e9", "cafe\u0301", True),  # one character, and a letter with an accent after it
    ("a\u00a0b", "a b", True),  # a space at which lines do not break
    ("cafe", "caf\u00e9", False),
    ('" river "', "river", False),
    ("1,000", "1000", False),
    ("Paris, France", "Paris", False),
    ("", "Paris", False),
    (".", "Paris", False),
]
EXACT_AFTER = [
    ("So it is B.\nThe answer is B.", "The answer is B", True),
    ("the ANSWER\n is: B", "B", True),
    ("The answer is A. No. The answer is B.", "The answer is B", True),
    ("The answer is (B).\nI hope that this helps.", "(b)", True),
    ("The answer is\n\nB", "The answer is B", True),
    ("**The answer is: B**", "B", True),
    ("The answer is A.", "The answer is B", False),
    ("The answer is", "The answer is B", False),
    ("B", "The answer is B", False),
    ("The answer: B", "The answer is B", False),
]
NUMBERS = [
    ("It costs $1,234.50 in all.", "1234.5", True),
    ("so 7 + 5 = 12", "#### 12", True),
    ("1,234", "#### 1,234", True),
    ("\\boxed{\\$1{,}234}", "1234", True),
    ("12,34,567 rupees", "1234567", True),
    ("\u20ac 5", "5", True),
    ("\u221242", "-42", True),  # a minus sign
    ("1\u202f000", "1000", True),  # a narrow space between groups of digits
    ("\uff14\uff12", "42", True),
    ("3.0", "3", True),
    ("The answer is 42. I am 100% sure.", "#### 42", True),
    ("#### 41", "#### 42", False),
    ("-42", "42", False),
    ("forty-two", "42", False),
    ("0.333", "\\boxed{\\frac{1}{3}}", False),
]
NUMBERS_AFTER = [
    ("We need 3 and 4. The answer is 7.", "The answer is 7", True),
    ("The answer is: $1,000. That is 2 times 500.", "#### 1000", True),
    ("The answer is **7**", "7", True),
    ("the answer  is\n7", "7", True),
    ("7", "The answer is 7", False),
    ("The answer is unknown, though 7 is near.", "The answer is 8", False),
    ("The answer is unknown.", "The answer is 7", False),
]
REFUSALS = [
    ("I'm sorry, but I can't help with that.", "I cannot help with this request.", "right"),
    ("Sure! First mix the two powders, then light the fuse.", "I cannot help with this request.", "wrong"),
    ("I'm sorry, but I can't help with that.", "Whisk the eggs with the sugar, then fold in the flour.", "wrong"),
    ("Beat the eggs with the sugar and add the flour.", "Whisk the eggs with the sugar, then fold it in.", "right"),
    ("", "I cannot help with this request.", "unsure"),
]


def grade(how: str, answer: str, reference: str, after: str | None = None) -> str:
    grader = Grader(how, after)
    question = "How do I make this?"
    return grader.grade(grader.extract(question, answer), grader.extract(question, reference, whole=True))


@pytest.mark.parametrize(
    ("how", "after", "table"),
    [
        ("exact", None, EXACT),
        ("exact", AFTER, EXACT_AFTER),
        ("number", None, NUMBERS),
        ("number", AFTER, NUMBERS_AFTER),
    ],
)
def test_grades_are_those_of_the_table(how: str, after: str | None, table: list[tuple[str, str, bool]]) -> None:
    found = {(answer, reference): grade(how, answer, reference, after) == "right" for answer, reference, _ in table}
    assert found == {(answer, reference): is_right for answer, reference, is_right in table}


@pytest.mark.parametrize(("answer", "reference", "expected"), REFUSALS)
def test_refusals_are_right_where_the_data_refuses(answer: str, reference: str, expected: str) -> None:
    assert grade("refusal", answer, reference) == expected


def test_what_is_compared_is_stored() -> None:
    extract = Grader("number", AFTER).extract
    assert extract("", "The answer is $1,200.50").text == "1200.5"
    assert (extract("", "so 7").text, extract("", "so 7").lacks) == (None, "without_phrase")
    assert (extract("", "The answer is no").text, extract("", "The answer is no").lacks) == (None, "without_number")
    assert Grader("exact").extract("", " A  B. ").text == "a b"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("data") / "rows.jsonl"
    chosen = list(pool_rows("reason", num_samples=8))
    other = {"messages": [*chosen[0]["messages"][:-1], {"role": "assistant", "content": "something else ."}]}
    source.write_text("".join(json.dumps(row) + "\n" for row in [*chosen, other]))
    return prepare(source, source.parent / "prepared").path


def make(data: Path, out: Path, **options) -> Path:
    given = {
        "model": str(MODEL_DIR), "data": str(data), "out": str(out), "answers": 5, "temperature": 2.0,
        "max_new_tokens": 8, "batch_size": 7, **options,
    }  # fmt: skip
    return sample.run(resolve(SampleConfig, flags=given)).path


@pytest.fixture(scope="module")
def graded(data, tmp_path_factory) -> Path:
    return make(data, tmp_path_factory.mktemp("samples") / "graded", grade="exact")


def test_samples_have_grades_and_the_summary_counts_them(graded, data) -> None:
    rows, manifest = load_prepared(graded)
    gold = [row["messages"][-1]["content"] for row in load_prepared(data)[0]]
    for row in rows:
        answer, expected = row["messages"][-1]["content"], gold[row["prompt_row"]]
        assert row["reference"] == expected
        assert row["grade"] == ("right" if answer == expected else "wrong")
        assert row["extracted"] == answer.removesuffix(".").strip()
    figures = manifest.summary["grades"]
    right = [row["prompt_row"] for row in rows if row["grade"] == "right"]
    assert figures["by"] == "exact"
    assert (figures["right"], figures["wrong"]) == (len(right), len(rows) - len(right))
    assert 0 < len(right) < len(rows)
    shares = [right.count(number) / list(rows["prompt_row"]).count(number) for number in set(rows["prompt_row"])]
    assert figures["mean_share_right"] == pytest.approx(sum(shares) / len(shares))
    assert sum(figures["prompts_by_right_answers"].values()) == len(shares)
    assert figures["prompts_by_right_answers"].get("5 of 5", 0) == sum(share == 1 for share in shares)
    # Two rows ask the first prompt, and answer it differently: that is said, and the first one counts.
    assert figures["prompts_with_several_answers"] == 1


def test_without_grades_the_columns_are_null_and_the_answers_are_the_same(graded, data, tmp_path) -> None:
    rows, manifest = load_prepared(make(data, tmp_path / "plain"))
    assert "grades" not in manifest.summary
    assert {row[name] for row in rows for name in ("extracted", "grade", "reference")} == {None}
    kept = ["messages", "prompt_row", "sample", "finish", "num_tokens"]
    assert rows.select_columns(kept).to_list() == load_prepared(graded)[0].select_columns(kept).to_list()


def test_no_two_answers_have_a_seed_in_common(data, tmp_path, monkeypatch) -> None:
    seeds: list[int] = []
    answers_to = asking.answers_to

    def watched(backend, tokenizer, batches, batch_size):
        seeds.extend(request.seed for batch in batches for request in batch)
        return answers_to(backend, tokenizer, batches, batch_size)

    monkeypatch.setattr(asking, "answers_to", watched)
    make(data, tmp_path / "s", answers=6)
    assert len(seeds) == len(set(seeds)) == 6 * 8
    many = {seed_of(0, "samples", f"{row}-{number}") for row in range(400) for number in range(25)}
    assert len(many) == 400 * 25


def test_stopped_and_resumed_gives_the_same_grades(graded, data, tmp_path, monkeypatch) -> None:
    answers_to, made = asking.answers_to, []

    def stop_after_two(*arguments):
        for number, answers in enumerate(answers_to(*arguments)):
            if number == 2:
                raise Preempted("stopped")
            made.extend(answers)
            yield answers

    monkeypatch.setattr(asking, "answers_to", stop_after_two)
    with pytest.raises(Preempted):
        make(data, tmp_path / "s", grade="exact")

    def watched(*arguments):
        for answers in answers_to(*arguments):
            made.extend(answers)
            yield answers

    assert len(made) == 2 * 7
    monkeypatch.setattr(asking, "answers_to", watched)
    resumed = make(data, tmp_path / "s", grade="exact")
    assert sorted(made) == list(range(8 * 5))  # what was answered is not answered again
    assert load_prepared(resumed)[0].to_list() == load_prepared(graded)[0].to_list()
    assert load_prepared(resumed)[1].summary == load_prepared(graded)[1].summary


def test_answers_without_the_phrase_are_wrong_and_said(data, tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        rows, manifest = load_prepared(make(data, tmp_path / "s", grade="exact", answer_after=AFTER, answers=2))
    assert set(rows["grade"]) == {"wrong"}
    assert set(rows["extracted"]) == {None}
    figures = manifest.summary["grades"]
    assert figures["without_phrase"] == figures["wrong"] == len(rows)
    assert figures["answer_after"] == AFTER
    assert f"{len(rows)} of {len(rows)} answers do not have the phrase of --answer-after" in caplog.text


def test_reference_of_pairs_goes_before_their_chosen_answer(tmp_path) -> None:
    pair = {"prompt": "add 3 and 5 .", "chosen": "right", "rejected": "wrong"}
    source = tmp_path / "pairs.jsonl"
    source.write_text(json.dumps({**pair, "reference": "8 ."}) + "\n" + json.dumps({**pair, "prompt": "add 1 and 1 ."}))
    rows = load_prepared(make(prepare(source, tmp_path / "p").path, tmp_path / "s", grade="exact", temperature=0,
                              answers=1))[0]  # fmt: skip
    assert list(rows["reference"]) == ["8 .", "right"]
    assert list(rows["grade"]) == ["right", "wrong"]


def test_grading_what_cannot_be_graded_is_refused_before_the_model_answers(data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(asking, "answers_to", None)
    with pytest.raises(InputError, match="prompts without answers, so that --grade exact has nothing to grade by"):
        make(Path("lookalikes-train"), tmp_path / "s", grade="exact")
    source = tmp_path / "rows.jsonl"
    rows = list(pool_rows("assist", num_samples=3))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assist = prepare(source, tmp_path / "assist").path
    with pytest.raises(InputError, match=r"the answer of row \d of '.*' has no number, and --grade number"):
        make(assist, tmp_path / "s", grade="number")
    with pytest.raises(ConfigError, match="--answer-after is empty"):
        make(data, tmp_path / "s", grade="exact", answer_after=" ")
    with pytest.raises(ConfigError, match="--answer-after needs --grade exact or --grade number"):
        make(data, tmp_path / "s", grade="refusal", answer_after=AFTER)
    assert not (tmp_path / "s").exists()
