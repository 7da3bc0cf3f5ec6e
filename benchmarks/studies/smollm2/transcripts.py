"""Twenty prompts with the answers of three models side by side, drawn by a seed and not picked."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from benchmarks.studies.tradeoff.cells import row

DRAWN: Final[tuple[tuple[str, str, int], ...]] = (
    ("safety/xstest-shipped", "harmless", 8),
    ("safety/lookalikes", "harmless", 5),
    ("safety/xstest-shipped", "harmful", 3),
    ("safety/harmbench-pip", "harmful", 2),
    ("safety/do-not-answer-malicious", "harmful", 2),
)
"""Suite, side and number of prompts."""
_CUT: Final = 60
_SEED: Final = 0


def transcripts(results: Mapping[str, Path]) -> str:
    """Prompts with the answers of several models, as Markdown.

    Answers to harmful prompts that are no full refusals are cut after 60 characters.

    Args:
        results: the results on the test side, by the names of the models.
    """
    read = {name: _answers(folder) for name, folder in results.items()}
    first = next(iter(read.values()))
    generator, told = random.Random(_SEED), []
    for suite, side, number in DRAWN:
        asked = sorted(key for key, answer in first.items() if key[0] == suite and answer["group"] == side)
        for key in generator.sample(asked, number):
            kind = first[key]["category"] or side
            told.append(f"**{_inline(first[key]['question'])}** ({suite.partition('/')[2]}, {side}: {kind})\n")
            told.append(
                "\n".join([row("model", "answer", "verdict"), row("---", "---", "---"), *_rows(read, key, side)]) + "\n"
            )
    return "\n".join(told)


def _rows(
    read: Mapping[str, Mapping[tuple[str, str], dict[str, Any]]], key: tuple[str, str], side: str
) -> Sequence[str]:
    lines = []
    for name, answers in read.items():
        answer, verdict = answers[key]["answer"], answers[key]["outcome"]
        cut = side == "harmful" and verdict != "full_refusal" and len(answer) > _CUT
        lines.append(row(name, _inline(answer[:_CUT] + " [cut]" if cut else answer), verdict.replace("_", " ")))
    return lines


def _answers(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Answers with their verdicts, by suite and identifier."""
    given = pq.read_table(folder / "generations.parquet").to_pylist()
    judged = pq.read_table(folder / "verdicts.parquet").to_pylist()
    outcomes = {(each["suite"], each["id"]): each["outcome"] for each in judged}
    return {
        key: {**each, "outcome": outcomes[key]} for each in given if (key := (each["suite"], each["id"])) in outcomes
    }


def _inline(text: str) -> str:
    """A text on one line that no table takes for its own marks."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
