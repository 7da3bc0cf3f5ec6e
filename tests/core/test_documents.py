"""Documents: every problem at once, at its place, in the spelling of the person who wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from data_registry.core.documents import Document, parse, read_text
from data_registry.core.errors import ConfigError, InputError


class Part(Document):
    """A part."""

    num_rows: int | None = Field(default=None, ge=1)
    kinds: Mapping[Literal["first", "second"], str] = Field(default_factory=dict)


class Whole(Document):
    """A document with parts in a list, in a mapping and by themselves."""

    name: str
    part_one: Part | None = None
    parts: list[Part] = Field(default_factory=list)
    by_name: dict[str, Part] = Field(default_factory=dict)


SUGGESTED = " (did you mean 'num-rows'?)"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(Whole, text, what="whole", where="w.yaml")
    assert caught.value.where == "w.yaml"
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: a\nnam: b", "unknown key 'nam' (did you mean 'name'?)"),
        ("name: a\npart-one: {num-row: 1}", "unknown key 'part-one.num-row' (did you mean 'num-rows'?)"),
        ("name: a\npart_one: {num_row: 1}", "unknown key 'part_one.num_row' (did you mean 'num_rows'?)"),
        ("name: a\nparts: [{}, {num_row: 1}]", "unknown key 'parts.1.num_row' (did you mean 'num_rows'?)"),
        ("name: a\nby-name: {my_part: {num-row: 1}}", "unknown key 'by-name.my_part.num-row'" + SUGGESTED),
        ("name: a\nby-name: {my_part: 3}", "'by-name.my_part' needs 'key: value' lines, got 3"),
        ("name: a\npart-one: {num-rows: 0}", "'part-one.num-rows': must be at least 1, got 0"),
        (
            "name: a\npart-one: {kinds: {frist: x}}",
            "'part-one.kinds.frist': must be 'first' or 'second', got 'frist' (did you mean 'first'?)",
        ),
        ("name: a\npart-one: {num-rows: true}", "'part-one': 'num_rows' needs a number, got true"),
        ("name: a\npart-one: {}\npart_one: {}", "'part_one' appears twice, once as 'part_one'"),
        ("parts: []", "'name' is missing"),
        ("- a", "a whole holds 'key: value' lines; this one is a list"),
        ("", "a whole holds 'key: value' lines; this one is empty"),
    ],
)  # fmt: skip
def test_a_problem_is_told_at_its_place(text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_all_problems_are_told_at_once() -> None:
    assert len(problems("nam: a\npart-one: {num-rows: no}\nparts: 3")) == 4


def test_defaults_stand_for_what_the_text_does_not_say() -> None:
    defaults = {"name": "file"}
    assert parse(Whole, "parts: []", what="whole", where="w.yaml", defaults=defaults).name == "file"
    assert parse(Whole, "name: own", what="whole", where="w.yaml", defaults=defaults).name == "own"


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the whole '.*none' does not exist"):
        read_text(tmp_path / "none", "whole")
    with pytest.raises(InputError, match="is a directory, where a whole is needed"):
        read_text(tmp_path, "whole")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not text"):
        read_text(tmp_path / "bytes", "whole")
