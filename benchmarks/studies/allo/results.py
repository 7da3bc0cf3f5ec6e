"""The results that are kept: all points, the items of the test, and what starting models score."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoTokenizer

from benchmarks.studies.allo.plan import HERE, MaskPlan, Start, read_plan
from benchmarks.studies.tradeoff.figures import Where, runs_of
from benchmarks.studies.tradeoff.outcomes import Outcome, Point, read_outcomes, read_table, write_table
from benchmarks.studies.tradeoff.plan import Run, Task
from benchmarks.studies.tradeoff.scoring import Scorer
from data_registry.testbed import MODEL_DIR
from data_registry.testbed.suite import SPLITS

FOLDER: Final = HERE / "results"
START: Final = "starting model"
WORLDS: Final = (0, 1, 2)
_TOKENS: Final = "tokens.parquet"
_MASKS: Final = "masks.parquet"
_MASK_NAMES: Final = {
    "ratio-0.1": "top 10 %", "ratio-0.1-score-gradient": "gradient 10 %", "order-least-ratio-0.1": "least 10 %",
    "ratio-0.1-score-magnitude": "magnitude 10 %", "ratio-0.1-score-random": "random 10 %",
}  # fmt: skip
_KINDS: Final = {"embed": "embeddings", "attn": "attention", "mlp": "feed-forward", "norm": "norms"}

Tokens = tuple[np.ndarray, np.ndarray, np.ndarray]
Clusters = list[tuple[str, str]]
"""The group of each item of the test, and what it asks about."""


@dataclass(frozen=True)
class Results:
    """All that is kept of the study's training runs.

    Attributes:
        plan: what was planned.
        outcomes: the runs; starting models are among them, as runs of that method with the name of the start as task.
        clusters: the items of the test by world.
        tokens: the tokens of wrong answers by world: the number of the answer, whether the token is wrong, and the
            rewriter's probability of it.
        masks: how many weights of each kind there are and a mask chooses; ``mask``, ``kind``, ``numel``, ``selected``.
    """

    plan: MaskPlan
    outcomes: Sequence[Outcome]
    clusters: Mapping[int, Clusters]
    tokens: Mapping[int, Tokens] = field(default_factory=dict)
    masks: Sequence[Mapping[str, Any]] = ()

    def runs(self, task: Task, worlds: Sequence[int] = WORLDS) -> dict[str, dict[Where, Outcome]]:
        """The runs with chosen rates: method, then world and seed."""
        return runs_of(self.outcomes, self.plan, task=task, references="complete", worlds=worlds)

    def tried(self, task: Task) -> list[Outcome]:
        """The runs of a task in the world that rates were chosen in, in the order of the plan and of rates."""
        names = list(self.plan.methods)
        found = [one for one in self.outcomes if (one.run.task, one.run.world, one.run.seed) == (task, WORLDS[0], 0)]
        return sorted(found, key=lambda one: (names.index(one.run.method), one.run.rate))

    def starts(self, start: Start) -> dict[Where, Point]:
        """The starting models by world and seed."""
        return {
            (one.run.world, one.run.seed): one.points[0]
            for one in self.outcomes if one.run.method == START and one.run.task == start
        }  # fmt: skip


def collect(work: Path) -> list[Outcome]:
    """The outcomes of all runs in the study's directory, and the starting models that they had."""
    return [*_starts(work / "runs"), *read_outcomes(work / "runs")]


def _starts(folder: Path) -> list[Outcome]:
    found = []
    for file in sorted(folder.glob("start-*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        start, world, *seed = record["start"].split("-")
        run = Run(start, START, 0.0, "complete", int(world), int(seed[0]) if seed else 0, 0)
        point = Point(0, 0.0, 0.0, *(record[split] for split in SPLITS), norm=0.0)
        found.append(Outcome(run, 0.0, 0.0, 0.0, 0.0, (point,)))
    return found


def keep(work: Path, folder: Path = FOLDER) -> None:
    """Write what is kept into a folder: all that was measured, and what the items of the test are about."""
    outcomes = collect(work)
    write_table(outcomes, {}, folder / "points.parquet")
    worlds = sorted({outcome.run.world for outcome in outcomes})
    rows = [
        {"world": world, "group": group, "about": about}
        for world in worlds
        for group, about in Scorer(world, AutoTokenizer.from_pretrained(MODEL_DIR)).clusters("test")
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet", compression="zstd")
    chosen = _masks(work)
    if chosen:
        pq.write_table(pa.Table.from_pylist(chosen), folder / _MASKS, compression="zstd")
    scores = sorted((work / "tokens").glob("scores-*.parquet"))
    if scores:
        table = pa.concat_tables([pq.read_table(file) for file in scores])
        pq.write_table(table, folder / _TOKENS, compression="zstd", compression_level=19)


def read_results(folder: Path = FOLDER) -> Results:
    """Read what is kept."""
    outcomes, _ = read_table(folder / "points.parquet")
    clusters: dict[int, Clusters] = {}
    for row in pq.read_table(folder / "items.parquet").to_pylist():
        clusters.setdefault(row["world"], []).append((row["group"], row["about"]))
    tokens = _tokens(folder / _TOKENS) if (folder / _TOKENS).exists() else {}
    masks = pq.read_table(folder / _MASKS).to_pylist() if (folder / _MASKS).exists() else []
    return Results(read_plan(), outcomes, clusters, tokens, masks)


def _masks(work: Path) -> list[dict[str, Any]]:
    """What the masks of the first world and seed choose, by kind of weights."""
    found: dict[tuple[str, str], list[int]] = {}
    drawn = work / "drawn" / f"world-{WORLDS[0]}-seed-0"
    for setting, title in (("base-sft", "SFT"), ("refusals-dpo", "DPO")):
        for words, name in _MASK_NAMES.items():
            file = drawn / setting / f"mask-{words}" / "layers.parquet"
            for line in pq.read_table(file).to_pylist() if file.exists() else ():
                kind = next(kind for part, kind in _KINDS.items() if part in line["parameter"])
                counts = found.setdefault((f"{name}, {title}", kind), [0, 0])
                counts[0] += line["numel"]
                counts[1] += line["selected"]
    return [
        {"mask": mask, "kind": kind, "numel": numel, "selected": selected}
        for (mask, kind), (numel, selected) in found.items()
    ]


def _tokens(file: Path) -> dict[int, Tokens]:
    columns = pq.read_table(file).to_pydict()
    worlds = np.array(columns["world"])
    return {
        int(world): (
            np.array(columns["row"])[worlds == world],
            np.array(columns["wrong"])[worlds == world],
            np.array(columns["probability"])[worlds == world],
        )
        for world in np.unique(worlds)
    }
