"""What runs are made from: the models of the worlds, data sets, samples and bases, each made once by its command."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.studies.tradeoff.references import reference_pools
from benchmarks.studies.tradeoff.training import FORWARD
from data_registry.prepared import load_prepared
from data_registry.testbed import MODEL_DIR, pools
from data_registry.testbed.pools import Row
from data_registry.testbed.world import SHIPPED_WORLD_SEED
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.sample import SampleConfig
from pipelines.core.config import CommandConfig
from pipelines.training.pretraining import retrain

WORLDS_WITH_RENDER: Final = (3, 4, 5)
"""The worlds whose models also learn the skill ``render``, which no references show."""
LOG_PROBS: Final = 586
"""As many as the testbed's vocabulary has words."""


@dataclass(frozen=True)
class Cost:
    """What something cost.

    Attributes:
        tokens: tokens of forward and backward passes; those of a forward pass alone count a third.
        cpu_s: seconds of CPU time.
    """

    tokens: float = 0.0
    cpu_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.tokens + other.tokens, self.cpu_s + other.cpu_s)


class Materials:
    """The materials of the runs with one world, one seed and one kind of references.

    Args:
        work: the directory of the whole study.
        world: the seed of the world.
        seed: the seed of the draws.
        references: the name of the references.
    """

    def __init__(self, work: Path, world: int, seed: int, references: str) -> None:
        self._work, self._world, self._seed = work, world, seed
        self._draw = work / "drawn" / f"world-{world}-seed-{seed}"
        self._folder = self._draw / references.replace(" ", "_").replace(",", "")
        self._pools = reference_pools(references, world, seed)

    @property
    def start(self) -> str:
        """A name for the starting model, for files."""
        return str(self._world)

    @property
    def model(self) -> Path:
        """The starting model; that of another world than the shipped one is trained when it is first asked for."""
        if self._world == SHIPPED_WORLD_SEED:
            return MODEL_DIR
        place = self._work / "models" / f"world-{self._world}"
        if not place.exists():
            aside = place.with_name(f"{place.name}.{os.getpid()}")
            with_render = self._world in WORLDS_WITH_RENDER
            retrain(aside, seed=self._world, world_seed=self._world, with_render=with_render)
            aside.rename(place)
        return place

    def safety(self, pool: str) -> Path:
        """The safety data: ``safety-sft`` or ``safety-dpo``."""
        rows = list(pools.rows(pool, self._seed, world_seed=self._world))
        return self._prepared(rows, self._draw / pool)

    def fill(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], Cost]:
        """Put the materials that options name in their places, and say what it cost to make them.

        Args:
            options: options of a training command, in which ``@data``, ``@samples`` and ``@basis`` stand for materials.
        """
        makers = {"@data": self._data, "@samples": self._samples, "@basis": self._basis}
        cost, filled = Cost(), dict(options)
        for name, value in options.items():
            if isinstance(value, str) and value in makers:
                filled[name], spent = makers[value]()
                cost += spent
        return filled, cost

    def _data(self) -> tuple[Path, Cost]:
        return self._prepared([row for rows in self._pools.values() for row in rows], self._folder / "all"), Cost()

    def _samples(self) -> tuple[Path, Cost]:
        data, _ = self._data()
        out = self._folder / "samples"
        config = SampleConfig(
            model=str(self.model),
            data=data,
            out=out,
            num_procs=1,
            max_new_tokens=24,
            batch_size=128,
            log_probs=LOG_PROBS,
        )
        seconds = made("sample", config)
        rows, _ = load_prepared(out, task="sft")
        # Every token once as it is made, and once more for the log-probabilities.
        return out, Cost(2 * FORWARD * num_tokens(row for row in rows), seconds)

    def _basis(self) -> tuple[Path, Cost]:
        places = [self._prepared(rows, self._folder / pool) for pool, rows in self._pools.items()]
        out = self._folder / "basis"
        config = BuildBasisConfig(
            model=str(self.model), reference=places, out=out, num_procs=1, num_samples=100, batch_size=50,
            max_length=64, precision="fp32",
        )  # fmt: skip
        seconds = made("build_basis", config)
        return out, Cost(num_tokens(row for rows in self._pools.values() for row in rows[:100]), seconds)

    def _prepared(self, rows: Sequence[Row], out: Path) -> Path:
        if not out.exists():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            file = out.with_name(f"{out.name}.jsonl")
            file.parent.mkdir(parents=True, exist_ok=True)
            aside = file.with_name(f"{file.name}.{os.getpid()}")
            aside.write_text(text, encoding="utf-8")
            aside.rename(file)
            made("prepare_data", PrepareDataConfig(source=str(file), out=out))
        return out


def made(command: str, config: CommandConfig) -> float:
    """Have a command make its artifact, and return the CPU time that it took whoever made it."""
    out: Path = getattr(config, "out")  # noqa: B009 - all these commands have one, which the base class does not know
    record = out.with_name(f"{out.name}.cost.json")
    started = time.process_time()
    made = importlib.import_module(f"pipelines.commands.{command}").run(config)
    if not made.up_to_date:
        record.write_text(json.dumps(time.process_time() - started), encoding="utf-8")
    return float(json.loads(record.read_text(encoding="utf-8")))


def num_tokens(rows: Any) -> int:
    """The number of tokens of conversations: their words, and one at the beginning of each turn and at its end."""
    turns = (turn for row in rows for part in row.values() if isinstance(part, list) for turn in part)
    return sum(len(turn["content"].split()) + (2 if turn["role"] == "assistant" else 1) for turn in turns)
