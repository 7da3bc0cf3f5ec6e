"""NaN and its kin are no values."""

from __future__ import annotations

from typing import Any

import pytest

from data_registry.formats.detection import detect
from data_registry.formats.registry import make_layout, read_row
from data_registry.schema import EMPTY, RejectedRow
from data_registry.values import as_mark, as_number, is_missing, says_something
from tests.data_registry.messages import bot, user

NAN = float("nan")
NOTHING = [None, NAN, -NAN, "nan", "NaN", " nan ", "<NA>", "NaT"]


@pytest.mark.parametrize("value", NOTHING, ids=repr)
def test_missing_values_are_no_text(value: Any) -> None:
    assert is_missing(value)
    assert not says_something(value)
    row = {"instruction": "Name a colour.", "input": value, "output": "Blue.", "system": value, "history": value}
    assert read_row(row, make_layout("alpaca"), "sft") == {"messages": [user("Name a colour."), bot("Blue.")]}
    assert detect([{**row, "note": value}]).format == "alpaca"


EVERYWHERE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "alpaca": ("alpaca", "sft", {"instruction": "a", "output": "?"}),
    "alpaca's question": ("alpaca", "sft", {"instruction": "?", "input": "", "output": "A"}),
    "qa": ("qa", "sft", {"question": "a", "answer": "?"}),
    "prompt-completion": ("prompt-completion", "sft", {"prompt": "?", "completion": "A"}),
    "preference": ("preference", "preference", {"prompt": "a", "chosen": "A", "rejected": "?"}),
    "saferlhf": (
        "saferlhf",
        "preference",
        {"prompt": "a", "response_0": "?", "response_1": "A", "safer_response_id": 1},
    ),
    "choice of saferlhf": (
        "saferlhf",
        "preference",
        {"prompt": "a", "response_0": "B", "response_1": "A", "safer_response_id": "?"},
    ),
    "messages": ("messages", "sft", {"messages": [user("a"), {"role": "assistant", "content": "?"}]}),
    "sharegpt": (
        "sharegpt",
        "sft",
        {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "A"}]},
    ),
    "history": ("qa", "sft", {"question": "a", "answer": "A", "history": [["q", "?"]]}),
}


@pytest.mark.parametrize("key", EVERYWHERE)
def test_rows_that_lack_a_text_are_empty(key: str) -> None:
    def put(value: Any, found: Any) -> Any:
        if isinstance(value, dict):
            return {name: put(part, found) for name, part in value.items()}
        return [put(part, found) for part in value] if isinstance(value, list) else found if value == "?" else value

    layout, task, row = EVERYWHERE[key]
    for value in NOTHING:
        with pytest.raises(RejectedRow) as caught:
            read_row(put(row, value), make_layout(layout), task)  # type: ignore[arg-type]
        assert caught.value.reason == EMPTY


def test_words_that_hold_nan_are_words() -> None:
    for word in ("nano", "banana", "Nan is my aunt.", "0", "None"):
        assert not is_missing(word)
    row = {"question": "What is 0/0?", "answer": "It is nan."}
    assert read_row(row, make_layout("qa"), "sft")["messages"][1] == bot("It is nan.")


def test_whole_numbers_that_pandas_wrote_as_fractions_name_a_choice() -> None:
    row = {"question": "a", "choices": ["x", "y"], "answer": 1.0}
    assert read_row(row, make_layout("choices"), "sft")["messages"][1] == bot("B. y")
    with pytest.raises(RejectedRow):
        read_row({**row, "answer": 0.5}, make_layout("choices"), "sft")


def test_infinity_is_no_text() -> None:
    with pytest.raises(RejectedRow, match="float"):
        read_row({"question": "a", "answer": float("inf")}, make_layout("qa"), "sft")


def test_marks_and_numbers() -> None:
    assert [as_mark(value) for value in (True, 1, "Yes", False, 0, -1.0, "bad", 2, 0.5, NAN, "odd", None, [])] == [
        True,
        True,
        True,
        False,
        False,
        False,
        False,
        None,
        None,
        None,
        None,
        None,
        None,
    ]
    found = [as_number(value) for value in (True, "false", "0.5", 2, "odd", None, 10**400)]
    assert found == [1.0, 0.0, 0.5, 2.0, None, None, None]


def test_values_nested_without_end_are_values() -> None:
    value: Any = None
    for _ in range(5000):
        value = [value]
    assert says_something(value)
    assert not says_something([[[None, "", {"a": []}]]])
