"""Options that hold a model to what it was: answers of the starting model beside the safety data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from pipelines.configs.common import split_numbers
from pipelines.core.config import CommandConfig, option

Kind = Literal["kl", "ce", "hidden"]


@dataclass(frozen=True)
class Anchors:
    """The anchor that a run has.

    Attributes:
        paths: the sets of its rows.
        kind: the loss on them.
        ratio: anchor rows as a share of all rows of an optimizer step.
        weight: the weight of the loss, greater than 0.
        shares: the shares of several sets among the rows, in any unit; empty for equal ones.
    """

    paths: tuple[Path, ...]
    kind: Kind
    ratio: float
    weight: float
    shares: tuple[float, ...] = ()


class AnchorConfig(CommandConfig):
    """Rows that keep abilities, with a loss of their own and its own mean."""

    anchor: list[Path] = option(
        [],
        "Rows on which the model is held to what it was, beside the safety data: samples of the starting model (from "
        "ogpsa sample), or a prepared data set, whose prompts the model then answers first (not for --anchor-kind ce). "
        "Repeat to take rows of several sets.",
        panel="Anchor",
        runtime=True,
    )
    anchor_kind: Kind = option(
        "kl",
        "kl: the divergence from what the sampled model expected at every place. ce: cross-entropy on the rows' "
        "answers. hidden: the distance from the starting model's last hidden states, relative to their size.",
        panel="Anchor",
        needs="anchor",
    )
    anchor_ratio: float = option(
        0.25,
        "Anchor rows as a share of all rows of an optimizer step; there is at least one in every step.",
        panel="Anchor",
        needs="anchor",
        gt=0,
        lt=1,
    )
    anchor_weight: float = option(
        1.0,
        "Weight of the anchor's loss, which is a mean over the tokens of its own rows.",
        panel="Anchor",
        needs="anchor",
        ge=0,
    )
    anchor_shares: list[float] = option(
        [],
        "Shares of several --anchor sets among the anchor rows, as 7,3; by default each has as many rows.",
        panel="Anchor",
        needs="anchor",
    )
    prompt_anchor: float = option(
        0.0,
        "Weight of the divergence from the starting model at the places of the safety prompts themselves; 0 is none.",
        panel="Anchor",
        off=0.0,
        ge=0,
    )
    anchor_log_probs: int = option(
        64,
        "Most likely tokens that are kept of the starting model at every place, for --prompt-anchor and for an "
        "--anchor whose prompts it answers first; all others share a bucket.",
        panel="Anchor",
        needs="anchor or prompt_anchor",
        ge=1,
    )

    @field_validator("anchor", mode="before")
    @classmethod
    def _one_set_will_do(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value

    @field_validator("anchor_shares", mode="before")
    @classmethod
    def _split_shares(cls, value: Any) -> Any:
        return split_numbers(value)

    @property
    def anchors(self) -> Anchors | None:
        """The anchor; None without one, also where its weight is 0."""
        if not self.anchor or self.anchor_weight == 0:
            return None
        return Anchors(
            tuple(self.anchor), self.anchor_kind, self.anchor_ratio, self.anchor_weight, tuple(self.anchor_shares)
        )

    def problems(self) -> list[str]:
        """What contradicts each other among the options of anchors."""
        problems = [*super().problems()]
        if len(set(self.anchor)) < len(self.anchor):
            problems.append("--anchor names a set twice; --anchor-shares says how many of its rows are used")
        if self.anchor_shares and (len(self.anchor_shares) != len(self.anchor) or len(self.anchor) == 1):
            problems.append(
                f"--anchor-shares takes a number for each of several --anchor, and there are {len(self.anchor)}"
            )
        elif any(share <= 0 for share in self.anchor_shares):
            problems.append("--anchor-shares takes numbers greater than 0")
        return problems


class StartOutputsConfig(CommandConfig):
    """What the starting model's outputs at rows depend on, beside the model."""

    tokens: str = option(..., "Hash of the rows in tokens: template and length are in it.")
    log_probs: int = option(..., "Most likely tokens that are kept; 0 for hidden states.")
    precision: str = option(..., "Arithmetic.")
    held_in_precision: bool = option(
        ..., "Whether weights are held in that precision rather than cast as they are used."
    )
    attention: str | None = option(None, "Attention implementation.")
