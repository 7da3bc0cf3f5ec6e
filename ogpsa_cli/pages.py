"""What a command's help needs, derived from its configuration class and kept in the user's cache directory.

Importing a configuration class imports pydantic, which costs half of the 0.3 s that help may take. What is kept is
valid for as long as the sources it was derived from are unchanged; without a writable cache, help is only slower.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ogpsa_cli.flags import Flag, flags_of
from pipelines.configs.commands import Command


@dataclass(frozen=True)
class Page:
    """A command's description, flags and examples."""

    description: str
    flags: Sequence[Flag]
    examples: Sequence[str]


def page_of(command: Command) -> Page:
    """The page of a command."""
    kept, stamp = _kept_at(command), _stamp()
    page = _read(kept, stamp)
    if page is None:
        page = _derive(command)
        _write(kept, stamp, page)
    return page


def _derive(command: Command) -> Page:
    config_class = command.config_class()
    description = inspect.cleandoc(config_class.__doc__ or "")
    return Page(description, flags_of(config_class), list(config_class.examples))


def _sources() -> list[Path]:
    """Every file that a page depends on."""
    here = Path(__file__).parent
    root = here.parent
    return [
        here / "flags.py",
        Path(__file__),
        root / "pipelines" / "core" / "config.py",
        *sorted((root / "pipelines" / "configs").glob("*.py")),
        # --format names the formats there are.
        *sorted((root / "data_registry" / "formats").glob("*.py")),
    ]


def _stamp() -> list[list[Any]]:
    stamp = []
    for path in _sources():
        status = path.stat()
        stamp.append([str(path), status.st_mtime_ns, status.st_size])
    return stamp


def _kept_at(command: Command) -> Path:
    """One file for each command of each installation."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    installation = f"{zlib.crc32(str(Path(__file__).resolve()).encode()):08x}"
    return root / "ogpsa" / "help" / f"{command.module}-{installation}.json"


def _read(kept: Path, stamp: list[list[Any]]) -> Page | None:
    try:
        raw = json.loads(kept.read_text(encoding="utf-8"))
        if raw["stamp"] != stamp:
            return None
        flags = [Flag(**{**flag, "names": tuple(flag["names"])}) for flag in raw["flags"]]
        return Page(raw["description"], flags, raw["examples"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(kept: Path, stamp: list[list[Any]], page: Page) -> None:
    aside = kept.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps({"stamp": stamp, **asdict(page)}), encoding="utf-8")
        os.replace(aside, kept)
