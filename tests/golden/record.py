"""The parts of the record, how each is made, and how it is kept in files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

from tests.golden import chain, texts
from tests.golden.digests import Record, artifacts
from tests.golden.workspace import Workspace, workspace

DIRECTORY = Path(__file__).parent / "record"
TEXTS: dict[str, Callable[[Workspace], dict[str, str]]] = {
    "help": texts.helps,
    "schemas": texts.schemas,
    "plans": texts.plans,
    "scripts": texts.scripts,
}


def _numbers(space: Workspace, part: str) -> dict[str, Record]:
    """One part of the artifacts; what two ranks start from is made by one process, and not recorded again."""
    if part == "ranks":
        space.ogpsa(chain.BEFORE_RANKS, must_succeed=True)
        space.ogpsa(chain.RANKS, num_procs=2, must_succeed=True)
        return {name: made for name, made in artifacts(space.path).items() if name.startswith("ranks/")}
    chain.write_answers(space.path)
    space.ogpsa(chain.ALONE if part == "alone" else chain.RECIPE, must_succeed=True)
    return artifacts(space.path)


NUMBERS = ("alone", "ranks", "recipe")
# What --only takes.
PARTS: dict[str, tuple[str, ...]] = {
    "all": (*TEXTS, *NUMBERS),
    "text": tuple(TEXTS),
    "numbers": NUMBERS,
    **{name: (name,) for name in (*TEXTS, *NUMBERS)},
}


def make_texts(part: str) -> dict[str, str]:
    """The texts of a part, as the tool prints them now."""
    with workspace() as space:
        return TEXTS[part](space)


def make_numbers(part: str) -> dict[str, Record]:
    """The artifacts of a part, as the tool makes them now."""
    with workspace() as space:
        return _numbers(space, part)


def write_texts(directory: Path, part: str, made: dict[str, str]) -> None:
    """Replace a part of the record: a file for every text."""
    folder = directory / part
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.txt"):
        path.unlink()
    for name, text in made.items():
        (folder / f"{name}.txt").write_text(text)


def read_texts(directory: Path, part: str) -> dict[str, str]:
    """A part of the record; empty where it was never made."""
    return {path.stem: path.read_text() for path in (directory / part).glob("*.txt")}


def write_numbers(directory: Path, part: str, made: dict[str, Record]) -> None:
    """Replace a part of the record: one compressed file, since digits of digests are most of it; a value a line."""
    directory.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, record in made.items():
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
        entries.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    text = "{\n" + ",\n".join(entries) + "\n}\n"
    # Without the time, so that equal records are equal files.
    (directory / f"{part}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def read_numbers(directory: Path, part: str) -> dict[str, Record]:
    """A part of the record."""
    read: dict[str, Record] = json.loads(gzip.decompress((directory / f"{part}.json.gz").read_bytes()))
    return read
