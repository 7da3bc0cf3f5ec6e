"""Values and messages are shortened in one place, and never longer than a screen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_registry.core.documents import explain_value
from data_registry.core.errors import ConfigError, InputError
from data_registry.core.shown import MESSAGE_CHARACTERS, MESSAGE_LINES, VALUE_CHARACTERS, clipped, message, shown

SLACK = 60  # what says how much was left out


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, 10**5000, -(10**5000), list(range(10**5)), {n: n for n in range(10**4)}, deep(200), b"\xff" * 10**5],
    ids=["text", "number", "negative number", "list", "mapping", "deep list", "bytes"],
)
def test_a_large_value_is_shown_in_a_line(value: Any) -> None:
    assert len(shown(value)) <= VALUE_CHARACTERS + SLACK
    assert len(explain_value({"type": "int_type", "input": value})) <= VALUE_CHARACTERS + 2 * SLACK


@pytest.mark.parametrize("value", ["fast", 1.5, True, None, [1, 2], {"a": "b"}, ("x",), "it's"])
def test_a_small_value_is_shown_whole(value: Any) -> None:
    assert shown(value) == repr(value)


@given(text=st.text(st.sampled_from("ab\n"), max_size=400), most=st.integers(1, 50), lines=st.integers(2, 20))
def test_a_text_is_cut_in_its_middle(text: str, most: int, lines: int) -> None:
    short = clipped(text, most)
    assert short == text if len(text) <= most else len(short) <= most + SLACK
    few = clipped(text, 10**6, lines=lines)
    assert few == text if text.count("\n") < lines else len(few.split("\n")) == lines


def test_no_error_is_longer_than_a_screen() -> None:
    for text in ("x" * 10**6, "x\n" * 10**5):
        error = InputError(text, where=text, fix=text)
        for part in (error.what, error.where, error.fix):
            assert part is not None
            assert len(part) <= MESSAGE_CHARACTERS + SLACK
            assert len(part.split("\n")) <= MESSAGE_LINES
    many = ConfigError([f"problem {n} " + "x" * n for n in range(5000)])
    assert len(many.problems) == 5000
    assert "5000 problems:" in many.what
    assert "and 4980 more" in many.what
    assert len(message(many.what)) <= MESSAGE_CHARACTERS + SLACK
