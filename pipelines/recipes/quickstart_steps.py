"""The steps of the quickstart: each is a command with its options, so that it can be run here or typed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.report import ReportConfig
from pipelines.configs.spelling import command_arguments
from pipelines.configs.tools import TestbedConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.config import CommandConfig

START = "start"
START_TITLE = "starting model"
REFERENCES = ("assist", "reason")
_NUM_STEPS = 160
# Early and often: at the start the reference loss is at its optimum and its gradients are mostly noise.
_REFRESH_EVERY = 5
_MAX_LENGTH = 64


@dataclass(frozen=True)
class Variant:
    """One training run of the comparison.

    Attributes:
        name: of its directories.
        title: in table and chart.
        purpose: what the run is for.
        options: how it differs from the others.
    """

    name: str
    title: str
    purpose: str
    options: Mapping[str, Any]


VARIANTS = (
    Variant("naive", "naive SFT", "train on refusals alone: the baseline", {}),
    Variant(
        "gradient",
        "projection (gradient space)",
        "train with projection of the gradient: the published rule",
        {"space": "gradient", "refresh_every": _REFRESH_EVERY},
    ),
    Variant(
        "update",
        "projection (update space)",
        "train with projection of the update: what the optimizer really changes",
        {"space": "update", "refresh_every": _REFRESH_EVERY},
    ),
)


@dataclass(frozen=True)
class Step:
    """One command of the chain."""

    command: str
    purpose: str
    config: CommandConfig

    @property
    def arguments(self) -> list[str]:
        """What to type after ``ogpsa``."""
        return command_arguments(self.command, self.config)


def steps(out: Path, seed: int) -> list[Step]:
    """The whole chain, in order.

    Args:
        out: directory for everything that is made.
        seed: of data order in training and of the bootstrap.
    """
    model = out / "model"
    data = {name: out / "data" / name for name in ("safety-sft", *REFERENCES)}
    basis = BuildBasisConfig(
        model=str(model),
        reference=[data[name] for name in REFERENCES],
        out=out / "basis",
        num_procs=1,
        precision="fp32",
        num_samples=100,
        batch_size=50,
        max_length=_MAX_LENGTH,
    )
    return [
        Step("testbed", "write the embedded model, which refuses nothing", TestbedConfig(out=model)),
        *(
            Step("prepare-data", f"prepare {name}", PrepareDataConfig(source=f"testbed-{name}", out=path))
            for name, path in data.items()
        ),
        Step("build-basis", "find the directions that general ability needs", basis),
        *(Step("train-sft", variant.purpose, _training(out, variant, seed)) for variant in VARIANTS),
        Step("evaluate", "evaluate the starting model", _evaluation(out, START, str(model), START_TITLE, seed)),
        *(
            Step(
                "evaluate",
                f"evaluate {variant.title}",
                _evaluation(out, variant.name, str(out / "runs" / variant.name), variant.title, seed),
            )
            for variant in VARIANTS
        ),
        Step("report", "put the results side by side", _comparison(out, seed)),
    ]


def _training(out: Path, variant: Variant, seed: int) -> TrainSftConfig:
    return TrainSftConfig(
        model=str(out / "model"),
        data=out / "data" / "safety-sft",
        basis=out / "basis" if variant.options else None,
        out=out / "runs" / variant.name,
        num_procs=1,
        precision="fp32",
        max_steps=_NUM_STEPS,
        learning_rate=3e-4,
        batch_size=16,
        accumulation=1,
        warmup_steps=0.1,
        max_length=_MAX_LENGTH,
        seed=seed,
        log_every=10,
        **variant.options,
    )


def _evaluation(out: Path, name: str, model: str, title: str, seed: int) -> EvaluateConfig:
    return EvaluateConfig(
        model=model, suite=["testbed"], name=title, out=out / "results" / name, batch_size=128, seed=seed
    )


def _comparison(out: Path, seed: int) -> ReportConfig:
    return ReportConfig(
        results=[str(path) for path in results_folders(out)],
        start=START_TITLE,
        title="What projection buys on the embedded testbed",
        out=out / "report",
        seed=seed,
    )


def results_folders(out: Path) -> list[Path]:
    """Where the results lie: the starting model's first, then those of the variants."""
    return [out / "results" / name for name in (START, *(variant.name for variant in VARIANTS))]
