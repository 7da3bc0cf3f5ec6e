"""Options of ``train-npo``: forgetting the rejected answers of preference data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pipelines.configs.train import TrainConfig
from pipelines.core.config import option


class TrainNpoConfig(TrainConfig):
    """Have a model forget the rejected answers of preference pairs, token by token or as a whole."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa train-npo MODEL --data data/pairs --out runs/npo",
        "ogpsa train-npo MODEL --data data/pairs --mask masks/changed --mask-at gradient --out runs/npo",
        "ogpsa train-npo MODEL --data data/pairs --loss npo --retain-weight 1 --out runs/npo",
        "ogpsa train-npo MODEL --data data/pairs --anchor samples --basis basis --space update --out runs/npo",
        "ogpsa train-npo MODEL --data data/pairs --loss simnpo --beta 2.5 --retain-weight 8 --out runs/simnpo",
    )

    command: ClassVar[str] = "train-npo"

    loss: Literal["npo-token", "npo", "simnpo"] = option(
        "npo-token",
        "npo-token: every token of a rejected answer by itself, with one mean over the tokens of a step. npo: every "
        "answer as a whole, from the sum of its log-ratios. simnpo: every answer as a whole, by its mean "
        "log-probability, without the starting model.",
        panel="Forgetting",
    )
    beta: float = option(
        0.1,
        "How soon what has become less likely stops counting; near 0 the loss is gradient ascent. Published: 0.1, and "
        "2.5 to 4.5 for --loss simnpo.",
        panel="Forgetting",
        gt=0,
    )
    gamma: float = option(
        0.0, "What is added to an answer's mean log-probability, times beta, in its loss.", panel="Forgetting",
        needs="loss=simnpo", off=0.0,
    )  # fmt: skip
    retain_weight: float = option(
        0.0,
        "Weight of the cross-entropy of the chosen answers, a mean over their tokens; 0 leaves them out.",
        panel="Forgetting",
        off=0.0,
        ge=0,
    )
    data: list[Path] = option(
        ...,
        "Prepared preference data, whose rejected answers are forgotten; repeat to train on several together.",
        short="d",
        runtime=True,
        min_length=1,
    )
    epochs: float = option(1.0, "Passes over the data.", panel="Training", gt=0)
    learning_rate: float = option(5e-7, "Peak learning rate.", panel="Training", gt=0)
    accumulation: int = option(32, "Forward passes per optimizer step.", panel="Training", ge=1)

    @property
    def needs_reference(self) -> bool:
        """Whether the loss compares the model with the one that training starts from."""
        return self.loss != "simnpo"
