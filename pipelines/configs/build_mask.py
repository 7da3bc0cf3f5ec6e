"""Options of ``ogpsa build-mask``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator

from pipelines.configs.common import DROP_TOO_LONG_HELP, EngineConfig, OutputConfig, ZeroStage, seed_option
from pipelines.configs.lengths import MAX_LENGTH_HELP, PreparedLength
from pipelines.configs.objectives import ObjectiveName
from pipelines.core.config import option

ScoreName = Literal["change", "gradient", "fisher", "snip", "magnitude", "principal", "random"]
GRADIENT_SCORES: tuple[str, ...] = ("gradient", "fisher", "snip")
"""The scores that need passes through the model."""
_NEEDS_GRADIENT = " or ".join(f"score={name}" for name in GRADIENT_SCORES)


class BuildMaskConfig(PreparedLength, OutputConfig, EngineConfig):
    """Choose the single weights that training may move, by a score, and store the choice as a mask of bits."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa train-dpo MODEL --data data/pairs --track-change --out runs/warmup",
        "ogpsa build-mask MODEL --change runs/warmup --ratio 0.05 --out masks/changed",
        "ogpsa build-mask MODEL --score random --ratio 0.05 --out masks/random               # the control",
        "ogpsa build-mask MODEL --score snip --data data/safety --ratio 0.03 --minus masks/utility --out masks/safety",
        "ogpsa train-dpo MODEL --data data/pairs --mask masks/changed --mask-at gradient --out runs/masked",
    )

    model: str = option(
        ..., "Model that training will start from: a directory, a hub id, or a run of ogpsa.", positional=True,
        runtime=True,
    )  # fmt: skip
    score: ScoreName = option(
        "change",
        "change: how far a warm-up run moved a weight. gradient: |mean gradient|. fisher: mean squared gradient. snip: "
        "|weight x gradient|. magnitude: |weight|. principal: |low-rank part of a matrix|. random: the control.",
    )
    change: Path | None = option(
        None, "Warm-up run of train-sft or train-dpo with --track-change.", panel="Score", runtime=True,
        needs="score=change",
    )  # fmt: skip
    end: str | None = option(
        None,
        "Model after a warm-up elsewhere, where there is no run that tracked its change; weights in full precision.",
        panel="Score",
        runtime=True,
        needs="score=change",
    )
    data: Path | None = option(
        None, "Prepared data set for gradients.", panel="Score", short="d", runtime=True, needs=_NEEDS_GRADIENT
    )
    objective: ObjectiveName = option(
        "sft", "Loss whose gradient is taken, as for build-basis.", panel="Score", needs="data"
    )
    beta: float = option(0.2, "Beta of the preference loss.", panel="Score", needs="objective=dpo", gt=0)
    num_samples: int = option(
        200, "Samples of the data set, drawn with --seed.", panel="Score", short="n", needs="data", ge=1
    )
    batch_size: int = option(
        4, "Samples of one forward pass; fisher squares the gradient of each.", panel="Score", short="b",
        needs="data", ge=1,
    )  # fmt: skip
    max_length: int | None = option(None, MAX_LENGTH_HELP, panel="Score", needs="data", ge=2)
    drop_too_long: bool = option(False, DROP_TOO_LONG_HELP, panel="Score", needs="data")
    rank: int = option(32, "Rank of the low-rank part of each matrix.", panel="Score", needs="score=principal", ge=1)
    seed: int = seed_option(
        0, "Seed of random scores, or of the draw of samples.", panel="Score", needs="score=random or data"
    )

    ratio: float = option(0.05, "Share of the weights that are chosen.", panel="Choice", gt=0, le=1)
    scope: Literal["global", "tensor"] = option(
        "global", "global: the share of all weights together. tensor: the same share of every tensor.", panel="Choice"
    )
    skip_top: float = option(
        0.0, "Leave out this share with the highest scores: the weights from there to --ratio are chosen.",
        panel="Choice", ge=0, lt=1,
    )  # fmt: skip
    order: Literal["most", "least"] = option(
        "most", "most: the highest scores are chosen. least: the lowest, weights without any score among them.",
        panel="Choice",
    )  # fmt: skip
    include: list[str] = option(
        [], "Choose among these parameters alone: names or patterns such as '*.mlp.*'; several with commas.",
        panel="Choice",
    )  # fmt: skip
    exclude: list[str] = option(
        [], "Choose no weights of these parameters, such as '*embed*'; several with commas.", panel="Choice"
    )
    union: list[Path] = option(
        [], "Add the weights of this mask; repeat for several.", panel="Other masks", runtime=True
    )
    intersect: list[Path] = option(
        [], "Then keep only weights that are in this mask too; repeat for several.", panel="Other masks", runtime=True
    )
    minus: list[Path] = option(
        [], "Finally take out the weights of this mask; repeat for several.", panel="Other masks", runtime=True
    )
    zero: ZeroStage | None = option(
        None,
        "DeepSpeed ZeRO stage for gradients, 0 to 3. By default none: a single process, or plain data parallelism.",
        panel="Processes",
        needs="data",
    )
    deepspeed: Path | None = option(
        None, "A DeepSpeed JSON file of your own, instead of --zero and --offload.", panel="Processes", runtime=True,
        needs="data",
    )  # fmt: skip
    workers: int = option(2, "Threads that read ahead.", panel="Processes", runtime=True, ge=1)

    @field_validator("include", "exclude")
    @classmethod
    def _split_at_commas(cls, patterns: list[str]) -> list[str]:
        words = [word.strip() for pattern in patterns for word in pattern.split(",")]
        return [word for word in words if word]

    def data_with_length(self) -> list[Path]:
        """The data set for gradients, if there is one."""
        return [] if self.data is None else [self.data]

    @property
    def needs_gradients(self) -> bool:
        """Whether the score is computed from gradients."""
        return self.score in GRADIENT_SCORES

    def problems(self) -> list[str]:
        """What is missing, and what contradicts each other."""
        problems = [*super().problems()]
        if self.score == "change" and (self.change is None) == (self.end is None):
            problems.append(
                "--score change needs either --change RUN (a warm-up run with --track-change) or --end MODEL"
                if self.change is None
                else "--change and --end both say where training ended; leave one out"
            )
        if self.needs_gradients and self.data is None:
            problems.append(f"--score {self.score} needs --data, the rows whose gradient is taken")
        if self.skip_top >= self.ratio:
            problems.append(f"--skip-top {self.skip_top:g} leaves nothing of --ratio {self.ratio:g}")
        return problems
