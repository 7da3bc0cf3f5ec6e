"""What a command's help needs, derived from its configuration class and kept in the user's cache directory.

Importing a configuration class imports pydantic, which costs half of the 0.3 s that help may take. What is kept is
valid for as long as the sources it was derived from are unchanged; without a writable cache, help is only slower.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ogpsa_cli.flags import Flag, flags_of


@dataclass(frozen=True)
class Page:
    """A command's description, flags and examples."""

    description: str
    flags: Sequence[Flag]
    examples: Sequence[str]


def page_of(module_name: str) -> Page:
    """The page of a command module such as ``ogpsa_cli.commands.train_sft``."""
    kept, stamp = _kept_at(module_name), _stamp(module_name)
    page = _read(kept, stamp)
    if page is None:
        page = _derive(module_name)
        _write(kept, stamp, page)
    return page


def _derive(module_name: str) -> Page:
    config_class = importlib.import_module(module_name).Config
    description = inspect.cleandoc(config_class.__doc__ or "")
    return Page(description, flags_of(config_class), list(config_class.examples))


def _sources(module_name: str) -> list[Path]:
    """Every file that a page depends on."""
    here = Path(__file__).parent
    root = here.parent
    return [
        here / "commands" / f"{module_name.rpartition('.')[2]}.py",
        here / "flags.py",
        Path(__file__),
        root / "pipelines" / "core" / "config.py",
        *sorted((root / "pipelines" / "configs").glob("*.py")),
    ]


def _stamp(module_name: str) -> list[list[Any]]:
    stamp = []
    for path in _sources(module_name):
        status = path.stat()
        stamp.append([str(path), status.st_mtime_ns, status.st_size])
    return stamp


def _kept_at(module_name: str) -> Path:
    """One file for each command of each installation."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    installation = f"{zlib.crc32(str(Path(__file__).resolve()).encode()):08x}"
    return root / "ogpsa" / "help" / f"{module_name.rpartition('.')[2]}-{installation}.json"


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
