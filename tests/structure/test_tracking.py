"""What counts as a step of a value's way, on a project of three files."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.structure.tracking import Track

FILES = {
    "top.py": """
from dataclasses import dataclass
from walked import low, middle

@dataclass
class Options:
    text: str
    other: int
    def first(self):
        return self.text[0]

def run(text):
    options = Options(text, 1)
    options.first()
    low.other(options.other)
    rows = [row for row in middle.rows(options)]
    low.last([rows])
    middle.after_the_end(text)
""",
    "middle.py": """
from walked import low

def rows(options):
    for part in (options.text, "nothing"):
        yield low.changed(part, low.length)

def after_the_end(text):
    pass
""",
    "low.py": """
def other(number):
    pass

def length(text):
    return len(text)

def changed(text, function):
    function(text)
    return text.upper()

def last(lists):
    pass
""",
}


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "walked").mkdir()
    for name, text in FILES.items():
        (tmp_path / "walked" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("walked.top")
    for name in [name for name in sys.modules if name.partition(".")[0] == "walked"]:
        del sys.modules[name]


def test_calls_with_the_value_are_the_way(top: Any, tmp_path: Path) -> None:
    track = Track(
        tmp_path, ("walked",), lambda value: isinstance(value, str) and value.lower() == "marked",
        is_end=lambda frame: frame.f_code.co_name == "last",
    )  # fmt: skip
    with track.following():
        top.run("marked")
    assert track.has_ended
    # Neither the record's own method nor the generator's return is a step; the end is one, and nothing after it.
    assert [(entry.file, entry.function, entry.caller, entry.itself) for entry in track.entries] == [
        ("walked/top.py", "run", None, True),
        ("walked/middle.py", "rows", "walked/top.py", False),
        ("walked/low.py", "changed", "walked/middle.py", True),
        ("walked/low.py", "length", "walked/low.py", True),
        ("walked/low.py", "last", "walked/top.py", True),
    ]


def test_a_file_that_is_opened_for_writing_ends_the_trip(top: Any, tmp_path: Path) -> None:
    track = Track(tmp_path, ("walked",), lambda value: value == "marked", last_file="table.md")
    with track.following():
        top.low.length("marked")
        (tmp_path / "table.md").write_text("done")
        top.low.length("marked")
    assert track.has_ended
    assert len(track.entries) == 1
