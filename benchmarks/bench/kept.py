"""Tables as documents: written, kept beside the code, and found again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench.launching import Outcome
from benchmarks.bench.machine import describe, difference
from pipelines.core.environment import git_commit, package_versions

KEPT = Path(__file__).resolve().parents[1] / "results"
"""Where ``--keep`` puts tables."""


def document(outcomes: Sequence[Outcome], size: str, **more: Any) -> dict[str, Any]:
    """A table as a JSON-ready document: where, when and of what it was made, and every benchmark with its lines."""
    return {
        "kind": "bench",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "machine": describe(),
        "versions": package_versions(),
        "size": size,
        **more,
        "benchmarks": [asdict(outcome) for outcome in outcomes],
    }


def write(table: dict[str, Any], path: Path) -> Path:
    """Write a table; an older one of the same name is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return path


def keep(table: dict[str, Any], folder: Path = KEPT) -> Path:
    """Write a table beside the code, under its size, its time and its device."""
    device = re.sub(r"\W+", "-", (table["machine"]["gpus"] or ["cpu"])[0] if table["size"] == "gpu" else "cpu").lower()
    return write(table, folder / f"bench-{table['size']}-{re.sub(r'[^0-9T]', '', table['date'][:19])}-{device}.json")


def read(path: Path) -> dict[str, Any]:
    """A table.

    Raises:
        ValueError: the file cannot be read, or holds no table.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' cannot be read as a table: {error}") from error
    if not isinstance(table, dict) or table.get("kind") != "bench":
        raise ValueError(f"'{path}' holds no table of python -m benchmarks.bench")
    return table


def last(size: str, folder: Path = KEPT, machine: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """What was kept last of a size: of this machine, or, where there is nothing, of another; or None.

    Tables may be kept of some benchmarks alone. So each benchmark is that of the newest table of this machine in which
    it has lines, and ``parts`` counts the tables that they are from.
    """
    tables = [read(path) for path in sorted(folder.glob("bench-*.json"))]
    tables = sorted((table for table in tables if table["size"] == size), key=lambda table: str(table["date"]))
    mine = [table for table in tables if machine is not None and not difference(machine, table["machine"])]
    if not mine:
        return (tables or [None])[-1]
    used: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        entry["name"]: (table, entry) for table in mine for entry in table["benchmarks"] if entry["lines"]
    }
    newest = max((table for table, _ in used.values()), key=lambda table: str(table["date"]), default=mine[-1])
    parts = len({str(table["date"]) for table, _ in used.values()})
    return {**newest, "benchmarks": [entry for _, entry in used.values()], "parts": parts}
