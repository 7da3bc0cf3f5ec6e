"""What runs are made from: beside those of the trade-off's study, the start after refusals, warm-up runs and masks."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.studies.allo.plan import MaskPlan, Start, Trains
from benchmarks.studies.allo.tokens import TokenMaterials
from benchmarks.studies.tradeoff.materials import Cost, Materials, made, num_tokens
from benchmarks.studies.tradeoff.running import config_of, saved
from benchmarks.studies.tradeoff.training import train
from data_registry.prepared import load_prepared
from pipelines.configs.build_mask import BuildMaskConfig
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from pipelines.configs.train_npo import TrainNpoConfig

CONFIGS: Final[dict[Trains, type[TrainConfig]]] = {
    "sft": TrainSftConfig, "dpo": TrainDpoConfig, "npo": TrainNpoConfig
}  # fmt: skip
_MASKED_BY: Final[dict[Start, Trains]] = {"base": "sft", "refusals": "dpo", "early": "dpo"}
_GRADIENT_SAMPLES = 200


class MaskMaterials(Materials):
    """The materials of the runs with one world, one seed and one start.

    Args:
        work: the directory of the whole study.
        plan: the plan.
        world: the seed of the world.
        seed: the seed of the draws, of the order of samples and of random masks.
        start: the model that runs start from. Masks for the base model are chosen by a warm-up of SFT, or by its
            loss, and those for others by DPO's.
    """

    def __init__(self, work: Path, plan: MaskPlan, world: int, seed: int, start: Start) -> None:
        super().__init__(work, world, seed, "complete")
        self._plan, self._start, self._trains = plan, start, _MASKED_BY[start]
        self._tokens = TokenMaterials(work, world)
        self._of_start = self._draw / f"{start}-{self._trains}"
        if start != "base":
            self._folder = self._of_start

    @property
    def start(self) -> str:
        """A name for the starting model: the same model does for all seeds unless it was trained with one."""
        drawn = f"-{self._seed}" if self._start == "refusals" else ""
        return f"{self._start}-{self._world}{drawn}"

    @property
    def base(self) -> Path:
        """The testbed's model."""
        return super().model

    @property
    def model(self) -> Path:
        """The starting model."""
        if self._start != "refusals":
            return self.base if self._start == "base" else self._tokens.model
        place = self._work / "starts" / self.start
        if not place.exists():
            aside = place.with_name(f"{place.name}.{os.getpid()}")
            options = {**self._plan.settings, **self._plan.refusals, "seed": self._seed}
            config = config_of(TrainSftConfig, options, self.base, self.safety("safety-sft"), aside / "run")
            saved(train(config, at=(), look=lambda *_: None).model, self.base, aside / "model")
            (aside / "model").rename(place)
            shutil.rmtree(aside)
        return place

    def data(self, trains: Trains) -> Path:
        """What a command trains on from this start."""
        if self._start == "early":
            return self._tokens.pairs("train")
        return self.safety("safety-sft" if trains == "sft" else "safety-dpo")

    def fill(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], Cost]:
        """As for the study of the trade-off; ``mask`` and ``token-weights`` may be options of the commands for them."""
        filled, cost = super().fill(options)
        if isinstance(filled.get("token-weights"), dict):
            filled["token-weights"] = self._tokens.weights(**filled["token-weights"])
        if isinstance(filled.get("mask"), dict):
            filled["mask"], spent = self.mask(filled["mask"])
            cost += spent
        return filled, cost

    def mask(self, options: Mapping[str, Any]) -> tuple[Path, Cost]:
        """A mask of the starting model, and what it cost with what it is chosen by.

        Args:
            options: options of build-mask; the score ``change`` is that of the warm-up run, gradients are those of the
                task's loss on its data, and random masks have the seed of the run.
        """
        given, cost = {key.replace("-", "_"): value for key, value in options.items()}, Cost()
        score = given.get("score", "change")
        if score == "change":
            given["change"], cost = self._warm_up()
        elif score in ("gradient", "fisher", "snip"):
            data = self.data(self._trains)
            given |= {"data": data, "objective": self._trains, "num_samples": _GRADIENT_SAMPLES, "batch_size": 50,
                      "max_length": 64, "precision": "fp32", "seed": self._seed}  # fmt: skip
            rows = load_prepared(data, task=_TASKS[self._trains])[0]
            cost = Cost(num_tokens(itertools.islice(rows, _GRADIENT_SAMPLES)))
        elif score == "random":
            given["seed"] = self._seed
        words = "-".join(f"{key}-{value}" for key, value in sorted(options.items()))
        out = self._of_start / f"mask-{words.replace('*', '')}"
        if "exclude" in given:
            given["exclude"] = [given["exclude"]]
        config = BuildMaskConfig.model_validate({**given, "model": str(self.model), "num_procs": 1, "out": out})
        return out, cost + Cost(0.0, made("build_mask", config))

    def _warm_up(self) -> tuple[Path, Cost]:
        out = self._of_start / "warm-up"
        options = {**self._plan.settings, **self._plan.warm_up[self._trains], "seed": self._seed, "track-change": True}
        data = self.data(self._trains)
        config = config_of(CONFIGS[self._trains], options, self.model, data, out)
        seconds = made(f"train_{self._trains}", config)
        rows = load_prepared(data, task=_TASKS[self._trains])[0]
        assert config.max_steps is not None
        per_row = num_tokens(rows) / len(rows)
        return out, Cost(per_row * config.max_steps * config.batch_size, seconds)


_TASKS: Final[dict[Trains, Any]] = {"sft": "sft", "dpo": "preference", "npo": "preference"}
