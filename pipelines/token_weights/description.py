"""The description kept with token weights: the rule and the map that they come from, the tokens that they are for."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from data_registry.core.errors import ArtifactError

DESCRIPTION_FILE = "weights.json"
KIND = "token-weights"


class Piece(BaseModel):
    """A piece of an answer's text: one token, or several that make whole characters only together.

    Attributes:
        text: the text.
        score: the mean score of its tokens.
        weight: the mean weight of its tokens.
    """

    model_config = ConfigDict(extra="forbid")
    text: str
    score: float
    weight: float


class ShownAnswer(BaseModel):
    """One of the first answers, as text for people to look at.

    Attributes:
        row: the number of its row.
        side: ``answer``, ``chosen`` or ``rejected``.
        pieces: its text in pieces, in order.
        num_more: how many of its tokens come behind these.
    """

    model_config = ConfigDict(extra="forbid")
    row: int
    side: str
    pieces: list[Piece]
    num_more: int = 0


class TokenWeightsDescription(BaseModel):
    """What token weights are and what they were computed by.

    Attributes:
        rule: where scores come from: ``rewriter``, ``ratio``, ``edit`` or ``logprob``.
        map: what makes weights of scores: ``below``, ``probability``, ``complement``, ``clip`` or ``top``; ``edit`` for
            the rule of that name, whose scores are weights already.
        threshold: the score below which a token counts; None for other maps.
        top: the share of each answer's tokens that count; None for other maps.
        order: whether these have the highest scores (``most``) or the lowest (``least``); None for other maps.
        sides: the sides that have weights.
        model: the model that gave the scores, and the tokenizer.
        against: the model that it was held against; None without one.
        tokenizer_hash: a hash of the tokenizer.
        template_hash: a hash of the chat template.
        max_length: the length in tokens at which rows are cut.
        drop_too_long: whether rows that are too long are left out; they have no number then.
        num_rows: the number of rows.
        num_tokens: the number of tokens that have a weight, zeros included.
        share_nonzero: the share of tokens whose weight is not 0.
        score_quantiles: percentiles of the scores of all tokens, from ``p0`` to ``p100``.
        first: the first answers as text.
    """

    model_config = ConfigDict(extra="forbid")
    rule: str
    map: str
    threshold: float | None
    top: float | None
    order: str | None
    sides: list[str]
    model: str
    against: str | None
    tokenizer_hash: str
    template_hash: str
    max_length: int
    drop_too_long: bool
    num_rows: int
    num_tokens: int
    share_nonzero: float
    score_quantiles: dict[str, float]
    first: list[ShownAnswer]


def read_description(path: Path) -> TokenWeightsDescription:
    """The description kept with token weights.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        return TokenWeightsDescription.model_validate_json((path / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"'{path}' does not describe token weights", where=str(path / DESCRIPTION_FILE)) from error
