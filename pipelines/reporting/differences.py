"""What differs between runs: options and data of training and of evaluation, only where they are not alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from data_registry.core.manifest import Manifest
from data_registry.core.redaction import hide_values
from pipelines.reporting.behind import TrainingRun
from pipelines.reporting.places import Places
from pipelines.reporting.tables import TextTable

# Where things lie and how a command ran; data and models are told by what they are, below.
_NOT_ASKED: Final = frozenset(
    {"out", "overwrite", "dry_run", "resume", "keep", "save_every", "log_every", "report_to", "name"}
)
_ABSENT: Final = "-"
_LONGEST: Final = 80
# Of more runs than this, each is a row, and the options are columns.
_MOST_COLUMNS: Final = 8


def differences_table(
    names: Sequence[str], stages: Sequence[Sequence[TrainingRun]], results: Sequence[Manifest | None], places: Places
) -> TextTable:
    """A row for each option or input in which runs differ; of many runs, a column.

    Args:
        names: the runs of the report.
        stages: the training runs behind each, the last one first.
        results: how each was evaluated; None where no manifest says it.
        places: how paths are shown.
    """
    most = max((len(found) for found in stages), default=0)
    facts: list[dict[str, str]] = []
    for found, manifest in zip(stages, results, strict=True):
        own: dict[str, str] = {}
        for number, stage in enumerate(reversed(found), start=1):
            head = "training" if most < 2 else f"training {number}"
            own |= {f"{head}: {key}": value for key, value in _facts(stage.manifest, places).items()}
        if manifest is not None:
            own |= {f"evaluation: {key}": value for key, value in _facts(manifest, places).items() if key != "model"}
        facts.append(own)
    keys = list(dict.fromkeys(key for own in facts for key in own))
    differing = [key for key in keys if _differs(key, facts)]
    cells = [[own.get(key, _ABSENT) for own in facts] for key in differing]
    if len(names) <= _MOST_COLUMNS:
        return TextTable(("", *names), tuple((key, *row) for key, row in zip(differing, cells, strict=True)))
    columns = list(zip(*cells, strict=True)) if cells else []
    return TextTable(("run", *differing), tuple((name, *row) for name, row in zip(names, columns, strict=False)))


def _differs(key: str, facts: Sequence[Mapping[str, str]]) -> bool:
    """Whether those that were trained (or evaluated) at all are not alike in this."""
    head = key.partition(":")[0]
    those = [own for own in facts if any(other.partition(":")[0] == head for other in own)]
    return len({own.get(key, _ABSENT) for own in those}) > 1


def _facts(manifest: Manifest, places: Places) -> dict[str, str]:
    """The options of a command and what it was given, in words."""
    command = next((word for word in manifest.command[1:2]), "")
    facts = {"command": command} if command else {}
    inputs: dict[str, list[str]] = {}
    for record in manifest.inputs:
        inputs.setdefault(record.role, []).append(f"{places.path(record.path)} ({record.fingerprint[:8]})")
    config: dict[str, Any] = hide_values(manifest.config)
    for key, value in config.items():
        if key not in _NOT_ASKED and key not in inputs and value not in (None, [], {}):
            facts[key.replace("_", " ")] = _words(value, places)
    return facts | {role: _short(", ".join(found)) for role, found in inputs.items()}


def _words(value: Any, places: Places) -> str:
    if isinstance(value, str):
        return _short(places.path(value) if value.startswith("/") else places.text(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return _short(", ".join(_words(each, places) for each in value))
    return _short(places.text(json.dumps(value, ensure_ascii=False, default=str)))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
