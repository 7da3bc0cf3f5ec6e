"""Options of training that say how much each token counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import field_validator

from pipelines.core.config import CommandConfig, option

_PADDED: Final = "padded:"


class TokenWeightsConfig(CommandConfig):
    """Weights of single tokens."""

    token_weights: Path | None = option(
        None,
        "Weights from score-tokens: how much each token of an answer counts in the loss, and 0 for not at all. They "
        "must be for the very tokens that are trained on. The held-out loss counts every token.",
        panel="Training",
        runtime=True,
    )


class SftWeightsConfig(CommandConfig):
    """What a weighted mean over tokens is divided by."""

    normalise: Literal["count", "weight"] = option(
        "count",
        "What the weighted losses of a step are divided by. count: the number of tokens whose weight is not 0. weight: "
        "the sum of the weights.",
        panel="Training",
        needs="token_weights",
        off="count",
    )


class RejectedTokensConfig(CommandConfig):
    """The filter of rejected answers' tokens."""

    rejected_tokens: str | None = option(
        None,
        "Share of each rejected answer's tokens that count, such as 0.1: those that have become least likely against "
        "the starting model; until a weight has moved, all. padded:0.1 is the published code's rule: as many as a "
        "share of the batch's padded width, prompt included. The held-out loss counts every token.",
        panel="Preferences",
    )

    @field_validator("rejected_tokens", mode="before")
    @classmethod
    def _number_or_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("rejected_tokens")
    @classmethod
    def _one_spelling(cls, value: str | None) -> str | None:
        return None if value is None else str(RejectedTokens.of(value))

    @property
    def token_filter(self) -> RejectedTokens | None:
        """The filter, or None."""
        return None if self.rejected_tokens is None else RejectedTokens.of(self.rejected_tokens)


@dataclass(frozen=True)
class RejectedTokens:
    """How many tokens of a rejected answer count.

    Attributes:
        share: the share, between 0 and 1.
        padded: whether it is of the batch's padded width, instead of the answer's own tokens.
    """

    share: float
    padded: bool = False

    @classmethod
    def of(cls, text: str) -> RejectedTokens:
        """The filter that ``0.1`` or ``padded:0.1`` asks for.

        Raises:
            ValueError: it is neither.
        """
        number = text.strip().removeprefix(_PADDED)
        try:
            share = float(number)
        except ValueError:
            raise ValueError(f"{text!r} is neither a share such as 0.1 nor padded:0.1") from None
        if not 0 < share < 1:
            raise ValueError(f"a share lies between 0 and 1, and {number.strip()} does not")
        return cls(share, text.strip().startswith(_PADDED))

    def __str__(self) -> str:
        return f"{_PADDED if self.padded else ''}{self.share!r}"


def weighting_problems(num_data_sets: int, trainer: Mapping[str, Any], *, numbers_lost: bool) -> list[str]:
    """What does not go with ``--token-weights``.

    Args:
        num_data_sets: the number of data sets that are trained on.
        trainer: options of TRL's trainer.
        numbers_lost: whether rows are both held out and left out as too long.
    """
    problems = []
    if num_data_sets > 1:
        problems.append(f"--token-weights are for the rows of one data set, and there are {num_data_sets} --data")
    if numbers_lost:
        problems.append(
            "--token-weights does not go with --eval-split and --drop-too-long together, where rows lose their "
            "numbers: leave rows out with prepare-data --tokenizer --max-length, or give held-out rows with --eval-data"
        )
    if trainer.get("label_smoothing_factor"):
        problems.append("--token-weights does not go with trainer.label_smoothing_factor, whose loss has no weights")
    if trainer.get("average_tokens_across_devices") is False:
        problems.append(
            "--token-weights divides by what all processes have, and trainer.average_tokens_across_devices=false by "
            "what each has: leave it out"
        )
    return problems
