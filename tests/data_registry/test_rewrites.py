"""The rows that a rewriter learns."""

from __future__ import annotations

import pytest

from data_registry.formats.detection import detect
from data_registry.formats.registry import make_layout, read_row
from data_registry.formats.rewriting import rewriter_prompt
from data_registry.schema import EMPTY, ROLES, UNDECIDED, UNREADABLE, RejectedRow

ROW = {"question": "2 and 2?", "solution": "2 + 2 = 4", "prediction": "2 + 2 = 5", "correction": "2 + 2 = 4"}
LAYOUT = make_layout("rewrite")


def said(text: str, role: str = "assistant") -> dict[str, str]:
    return {"role": role, "content": text}


def test_row_asks_with_the_rewriters_prompt_and_is_answered_by_the_correction() -> None:
    row = read_row(ROW, LAYOUT, "sft")
    assert row == {
        "messages": [
            said(rewriter_prompt("2 and 2?", "2 + 2 = 4", "2 + 2 = 5"), "user"),
            said("2 + 2 = 4"),
        ]
    }


def test_columns_of_prepared_pairs_will_do() -> None:
    layout = make_layout(
        "rewrite",
        {"question": "prompt", "solution": "reference", "prediction": "rejected", "correction": "chosen"},
    )
    pair = {
        "prompt": [said("2 and 2?", "user")],
        "chosen": [said("2 + 2 = 4")],
        "rejected": [said("2 + 2 = 5")],
        "reference": "2 + 2 = 4",
    }
    assert read_row(pair, layout, "sft") == read_row(ROW, LAYOUT, "sft")
    with pytest.raises(RejectedRow) as outcome:
        read_row({**pair, "chosen": [said("a"), said("b", "user"), said("c")]}, layout, "sft")
    assert outcome.value.reason == ROLES


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"correction": " 2 + 2 = 5\n"}, UNDECIDED),
        ({"solution": " "}, EMPTY),
        ({"question": None}, EMPTY),
        ({"prediction": ""}, EMPTY),
        ({"prediction": {"text": "5"}}, UNREADABLE),
        ({"correction": True}, UNREADABLE),
    ],
)
def test_rows_that_teach_nothing_are_rejected(change: dict[str, object], reason: str) -> None:
    with pytest.raises(RejectedRow) as outcome:
        read_row({**ROW, **change}, LAYOUT, "sft")
    assert outcome.value.reason == reason


def test_missing_column_is_named() -> None:
    row = {name: value for name, value in ROW.items() if name != "correction"}
    with pytest.raises(RejectedRow, match="there is no 'correction' among the columns question, solution, prediction"):
        read_row(row, LAYOUT, "sft")


def test_the_four_columns_are_recognised_and_pairs_are_not_taken_for_them() -> None:
    assert detect([ROW] * 3).format == "rewrite"
    pair = {"prompt": "q", "chosen": "a", "rejected": "b", "reference": "c"}
    assert detect([pair] * 3).format == "preference"
