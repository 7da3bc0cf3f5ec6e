"""Texts of others as they are shown: nothing acts on a terminal, nothing stays unseen, nothing else changes."""

from __future__ import annotations

import io
import json
import logging
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_registry.core.visible import is_text, visible, visible_json
from data_registry.core.yaml_text import dump, parse_yaml
from pipelines.core import log

SHOWN = {
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x9b2J": r"\x9b2J",
    "a\rb\x08\x7f": r"a\rb\x08\x7f",
    "\u202egnp.exe": r"\u202egnp.exe",
    "a\u2028b\ufeff": r"a\u2028b\ufeff",
    "\U000e0041": r"\U000e0041",
    "\ud800": r"\ud800",
    "C:\\new": "C:\\new",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\U0001f469\u200d\U0001f467": "\U0001f469\u200d\U0001f467",
}


@pytest.mark.parametrize("text", SHOWN)
def test_what_acts_or_hides_is_spelled_out(text: str) -> None:
    assert visible(text) == visible(text, block=True) == SHOWN[text]


def test_lines_stay_lines_in_a_block_alone() -> None:
    assert visible("a\n\tb\u200bc", block=True) == "a\n\tb\u200bc"
    assert visible("a\n\tb\u200bc") == r"a\n\tb\u200bc"


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
def test_any_text_becomes_one_printable_line(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    assert len(shown.splitlines()) <= 1
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [
        c
        for c in shown
        if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    ]
    shown.encode()
    assert is_text(shown)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(ANY_TEXT, st.one_of(ANY_TEXT, st.lists(ANY_TEXT, max_size=3)), max_size=3))
def test_json_and_yaml_read_back_as_they_were(value: dict[str, object]) -> None:
    text = visible_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert visible(text, block=True) == text
    if is_text(value):
        written = dump(value)
        assert visible(written, block=True) == written
        assert parse_yaml(written, where="test") == value


def test_a_name_that_is_not_utf8_is_told() -> None:
    assert is_text({"a": ["b", {"c": "\u00e9"}], "n": 1})
    assert not is_text({"a": ["b", {"c": "\udcff"}]})
    assert not is_text({"\udcff": 1})


def test_the_log_shows_them_spelled_out_and_hides_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        log.configure()
        logging.getLogger("pipelines.test").warning("row %s with api_key=%s", "\x1b[2J", "abcdef123456")
    finally:
        root.handlers[:] = before
    assert stream.getvalue() == "row \\x1b[2J with api_key=***\n"
