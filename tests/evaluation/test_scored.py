"""The suites preference, gsm8k and multiple-choice, against what the model gives when it is called directly."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch

from data_registry.core.errors import ConfigError, InputError
from data_registry.formats.choices import options_of
from data_registry.testbed import MODEL_DIR
from data_registry.testbed import suite as testbed_items
from pipelines.commands import evaluate, prepare_data
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.evaluation.answering.store import read_generations
from pipelines.evaluation.contract.answer import read_answers
from pipelines.evaluation.suites.final_number import final_number
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from tests.shared import need

VOCABULARY = json.loads((MODEL_DIR / "tokenizer.json").read_text())["model"]["vocab"]


@pytest.fixture(scope="module")
def model():
    return load_model(resolve_model(str(MODEL_DIR)), precision="fp32").double()


def prepared(path: Path, rows: list[dict], **options) -> Path:
    source = path.with_suffix(".jsonl")
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare_data.run(PrepareDataConfig(source=str(source), out=path, num_workers=1, **options))
    return path


def config(out: Path, suite: str | list[str], data: list[Path], **options) -> EvaluateConfig:
    suites = [suite] if isinstance(suite, str) else suite
    return EvaluateConfig(**{"model": str(MODEL_DIR), "suite": suites, "data": data, "out": out} | options)


def log_probability(model, question: str, answer: str) -> float:
    """Of an answer with its end, one word after the other, in double precision."""
    words = f"<user> {question} <bot> {answer} <end>".split()
    ids = [VOCABULARY.get(word, VOCABULARY["<unk>"]) for word in words]
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
    start = len(words) - len(answer.split()) - 1
    return sum(logs[position - 1, ids[position]].item() for position in range(start, len(ids)))


def facts(count: int) -> list[tuple[str, str]]:
    items = [item for item in testbed_items.items() if item.group == "fact"][:count]
    return [(item.messages[-1]["content"], item.answer) for item in items]


# --- preference --------------------------------------------------------------------------------------------------


def test_preference_is_the_difference_of_log_probabilities(tmp_path, model):
    pairs = [(q, a, "sorry .") if n % 3 else (q, "sorry .", a) for n, (q, a) in enumerate(facts(8))]
    rows = [
        {
            "prompt": [{"role": "user", "content": q}],
            "chosen": [{"role": "assistant", "content": c}],
            "rejected": [{"role": "assistant", "content": r}],
        }
        for q, c, r in pairs
    ]
    data = prepared(tmp_path / "pairs", rows)
    result = evaluate.run(config(tmp_path / "r", "preference", [data], batch_size=3))
    margins = [log_probability(model, q, c) - log_probability(model, q, r) for q, c, r in pairs]
    accuracy = result.results.metric("preference/pairs", "accuracy")
    margin = result.results.metric("preference/pairs", "margin")
    assert accuracy.value == np.mean([value > 0 for value in margins])
    assert 0 < accuracy.value < 1
    assert margin.value == pytest.approx(np.mean(margins), rel=1e-4)
    assert margin.low < margin.value < margin.high
    assert (margin.unit, margin.num_items, accuracy.num_items) == ("nats", 8, 8)
    stored = [item.score for item in read_answers(result.path) if item.group == "margin"]
    assert stored == pytest.approx(margins, rel=1e-4)


# --- gsm8k -------------------------------------------------------------------------------------------------------


RESULTS = {
    "It is 3 + 4 = 7.\n#### 1,234": 1234,
    "so we get $18.00.": 18,
    "The answer is **42**, since 6 x 7 = 42 and 5 is odd": 42,
    r"hence \boxed{-3.5} and not 4": -3.5,
    r"hence \boxed{\$5}": 5,
    "first 3, then 5-2 = 3 apples": 3,
    "it fell by -12 degrees": -12,
    "there are 1,000,000.": 1000000,
    "#### 7\n#### 8": 8,
    "x2 and no3": None,
    "I do not know.": None,
    "": None,
    "about .5 litres": 0.5,
}


@pytest.mark.parametrize("text", RESULTS)
def test_the_result_of_an_answer(text):
    expected = RESULTS[text]
    assert final_number(text) == (None if expected is None else Decimal(str(expected)))


def test_the_results_of_gsm8k_are_what_stands_behind_the_hashes():
    (file,) = need("gsm8k_test.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) > 1000
    for row in rows:
        assert final_number(row["answer"]) == Decimal(row["answer"].rsplit("#### ")[-1].replace(",", ""))


def test_gsm8k_counts_exact_matches_of_greedy_answers(tmp_path):
    words = [f"what is number {n} ?" for n in range(6)]
    rows = [{"question": word, "answer": f"think\n#### {n}"} for n, word in enumerate(words)]
    data = prepared(tmp_path / "maths", rows)
    result = evaluate.run(config(tmp_path / "r", "gsm8k", [data], max_new_tokens=8))
    suite = result.results.suites[0]
    answers = read_generations(result.path)
    assert [answer.question for answer in answers] == words
    assert [answer.expected for answer in answers] == [str(n) for n in range(6)]
    right = [final_number(answer.answer) == Decimal(answer.expected) for answer in answers]
    assert suite.metrics[0].value == np.mean(right)
    assert suite.metrics[0].num_items == 6
    assert suite.counts["no_number"] == sum(final_number(answer.answer) is None for answer in answers)
    assert not (tmp_path / "r" / "verdicts.parquet").exists()


def test_answers_that_are_right_score(tmp_path, monkeypatch):
    from pipelines.evaluation.answering.backend import TransformersBackend

    data = prepared(tmp_path / "maths", [{"question": f"what is {n} ?", "answer": f"#### {n}"} for n in (1, 2)])

    def says_two(self, batches, **_):
        return ([(request, [VOCABULARY["2"]]) for request in batch] for batch in batches)

    monkeypatch.setattr(TransformersBackend, "continue_all", says_two)
    result = evaluate.run(config(tmp_path / "r", "gsm8k", [data]))
    assert [item.score for item in read_answers(result.path)] == [0.0, 1.0]


def test_data_without_numbers_is_refused(tmp_path):
    data = prepared(tmp_path / "facts", [{"question": "why ?", "answer": "so"}])
    with pytest.raises(InputError, match=r"row 0 of .* has no number"):
        evaluate.run(config(tmp_path / "r", "gsm8k", [data]))


# --- multiple-choice ---------------------------------------------------------------------------------------------


CHOICES = [
    {"question": q, "choices": options, "answer": options.index(a)}
    for n, (q, a) in enumerate(facts(6))
    for options in [sorted({a, "sorry .", "yes"}, reverse=bool(n % 2))]
]


def test_the_likeliest_choice_is_taken(tmp_path, model):
    data = prepared(tmp_path / "mc", CHOICES)
    result = evaluate.run(config(tmp_path / "r", "multiple-choice", [data], batch_size=4))
    items = read_answers(result.path)
    for row, item in zip(CHOICES, items, strict=True):
        lines = [f"{letter}. {text}" for letter, text in zip("ABC", row["choices"], strict=True)]
        question = f"{row['question']} {' '.join(lines)}"
        expected = max(lines, key=lambda line, question=question: log_probability(model, question, line))
        assert (item.answer, item.expected) == (expected, lines[row["answer"]])
        assert item.score == float(expected == lines[row["answer"]])
    assert result.results.metric("multiple-choice/mc", "accuracy").value == np.mean([item.score for item in items])


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Q", "choices": ["x", "y"], "answer": 1},
        {"question": "Q", "options": ["x", "y"], "answer": "B"},
        {"question": "Q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
        {"question": "Q", "choices": ["x", "y"], "gold": "1"},
    ],
)
def test_the_layouts_of_choices_give_one_row(tmp_path, row):
    from data_registry.prepared import load_prepared

    data = prepared(tmp_path / "mc", [row], format="choices")
    messages = load_prepared(data)[0][0]["messages"]
    assert [message["content"] for message in messages] == ["Q\n\nA. x\nB. y", "B. y"]
    assert options_of(messages[0]["content"]) == ["A. x", "B. y"]


def test_rows_that_are_no_choices_are_rejected_with_their_reason(tmp_path):
    rows = [{"question": "Q", "choices": ["x", "y"], "answer": 0}] * 1 + [
        {"question": "Q2", "choices": ["x", "y"], "answer": 2},
        {"question": "Q3", "choices": ["x"], "answer": 0},
        {"question": " ", "choices": ["x", "y"], "answer": 0},
    ]
    data = prepared(tmp_path / "mc", rows, format="choices", max_dropped=1.0)
    rejected = [json.loads(line) for line in (data / "rejected.jsonl").read_text().splitlines()]
    assert [entry["reason"] for entry in rejected] == ["unreadable", "unreadable", "empty"]
    assert "names none of 2 choices" in json.dumps(rejected[0])


def test_options_and_letters():
    assert options_of("Q\n(A) x\n(B) y\n(C) z") == ["(A) x", "(B) y", "(C) z"]
    assert options_of("Q\nA) x\nC) z") == []
    assert options_of("A. lone") == []


def test_letters_alone_may_be_the_answers(tmp_path):
    data = prepared(tmp_path / "mc", [{"question": "is it ?\nA) yes\nB) no", "answer": "B"}])
    result = evaluate.run(config(tmp_path / "r", "multiple-choice", [data]))
    (item,) = read_answers(result.path)
    assert item.answer in ("A", "B")
    assert item.expected == "B"


def test_rows_that_cannot_be_scored_are_refused(tmp_path):
    data = prepared(tmp_path / "facts", [{"question": "why ?", "answer": "so"}])
    with pytest.raises(InputError, match="it has no lines 'A"):
        evaluate.run(config(tmp_path / "r", "multiple-choice", [data]))
    data = prepared(tmp_path / "mc", CHOICES)
    with pytest.raises(InputError, match="longer than 8 tokens"):
        evaluate.run(config(tmp_path / "r", "multiple-choice", [data], max_length=8))


# --- Together ----------------------------------------------------------------------------------------------------


def test_data_goes_to_the_suites_of_its_task(tmp_path):
    general = prepared(tmp_path / "general", [{"question": q, "answer": a} for q, a in facts(3)])
    pair = {
        "prompt": [{"role": "user", "content": "why ?"}],
        "chosen": [{"role": "assistant", "content": "so"}],
        "rejected": [{"role": "assistant", "content": "no"}],
    }
    pairs = prepared(tmp_path / "pairs", [pair])
    both = evaluate.run(config(tmp_path / "r", ["reference-loss", "preference"], [general, pairs]))
    assert [suite.suite for suite in both.results.suites] == ["reference-loss/general", "preference/pairs"]
    with pytest.raises(ConfigError, match="suite 'preference' needs a data set that was prepared for preference"):
        evaluate.run(config(tmp_path / "r2", ["reference-loss", "preference"], [general]))
    with pytest.raises(InputError, match="where sft is needed"):
        evaluate.run(config(tmp_path / "r2", "reference-loss", [pairs]))


# --- answer-choice -----------------------------------------------------------------------------------------------


def test_answer_choice_is_the_likeliest_of_four_by_the_mean_of_its_tokens(tmp_path, model):
    pairs = facts(12)
    # Two answers belong to other prompts, so that not all are right.
    pairs[2], pairs[7] = (pairs[2][0], pairs[7][1]), (pairs[7][0], pairs[2][1])
    data = prepared(tmp_path / "facts", [{"prompt": q, "response": a} for q, a in pairs])
    result = evaluate.run(config(tmp_path / "r", "answer-choice", [data], batch_size=5))
    answers = list(dict.fromkeys(answer for _, answer in pairs))
    expected = []
    for question, answer in pairs:
        others = sorted((one for one in answers if one != answer), key=lambda one: abs(len(one) - len(answer)))[:3]
        means = [log_probability(model, question, one) / (len(one.split()) + 1) for one in (answer, *others)]
        expected.append(float(means[0] > max(means[1:])))
    assert [item.score for item in read_answers(result.path)] == expected
    accuracy = result.results.metric("answer-choice/facts", "accuracy")
    assert accuracy.value == pytest.approx(np.mean(expected))
    assert 0.5 < accuracy.value < 1
    assert {item.expected for item in read_answers(result.path)} == set(answers)


def test_answer_choice_needs_four_different_answers(tmp_path):
    data = prepared(tmp_path / "few", [{"prompt": f"what is {n}", "response": f"it is {n % 3}"} for n in range(9)])
    with pytest.raises(InputError, match="has 3 different answers, and 4 are needed"):
        evaluate.run(config(tmp_path / "r", "answer-choice", [data]))
