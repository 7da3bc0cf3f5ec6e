"""Rows of ``train-npo``: the rejected answers, which are to be forgotten, and the chosen ones beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from pipelines.tokens.labels import IGNORED
from pipelines.tokens.pairs import Pair
from pipelines.training.data.weighting import REFERENCE, TOKEN_WEIGHTS, padded

COLUMNS: Final = ("input_ids", "labels", TOKEN_WEIGHTS, REFERENCE, "retain_ids", "retain_labels")


def unwanted_rows(
    pairs: Sequence[Pair],
    *,
    weights: Sequence[Sequence[float]] | None,
    with_chosen: bool,
) -> list[dict[str, Any]]:
    """Rows of tokens for :class:`UnwantedCollator`.

    Args:
        pairs: the tokenised pairs, with ``ref_rejected_token_logps`` where the loss compares with the starting model.
        weights: for each pair the weights of its rejected answer's tokens; all are 1 where there are none.
        with_chosen: whether the chosen answers are needed beside them.

    Returns:
        Rows with ``input_ids`` and ``labels`` of prompt and rejected answer; where they are given ``token_weights`` and
        ``ref_rejected_token_logps``, as long as these and 0 on the prompt; and ``retain_ids`` and ``retain_labels`` of
        prompt and chosen answer.
    """
    rows = []
    for index, pair in enumerate(pairs):
        prompt, answer = pair["prompt_ids"], pair["rejected_ids"]
        row = {"input_ids": [*prompt, *answer], "labels": [IGNORED] * len(prompt) + answer}
        for name, values in ((TOKEN_WEIGHTS, weights and weights[index]), (REFERENCE, pair.get(REFERENCE))):
            if values is not None:
                assert len(values) == len(answer), "a number for every token of the answer"
                row[name] = [0.0] * len(prompt) + list(values)
        if with_chosen:
            row["retain_ids"] = [*prompt, *pair["chosen_ids"]]
            row["retain_labels"] = [IGNORED] * len(prompt) + pair["chosen_ids"]
        rows.append(row)
    return rows


@dataclass
class UnwantedCollator:
    """Batches of B unwanted answers, followed by the chosen answers of the same rows where they have them.

    Attributes:
        inner: pads rows of ``input_ids`` and ``labels``, on the right.
    """

    inner: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A padded batch.

        Returns:
            What ``inner`` makes, ``[R, L]``, with ``labels`` on the unwanted answers alone; ``retain_labels``, those on
            the chosen ones; ``token_weights`` and ``ref_rejected_token_logps`` float32, 0 outside the unwanted answers.
        """
        both = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]
        both += [
            {"input_ids": row["retain_ids"], "labels": row["retain_labels"]} for row in rows if "retain_ids" in row
        ]
        batch = self.inner(both)
        labels: Tensor = batch["labels"]
        retained = labels.clone()
        retained[: len(rows)] = IGNORED
        labels[len(rows) :] = IGNORED
        batch["retain_labels"] = retained
        others: list[list[float]] = [[] for _ in both[len(rows) :]]
        weights = [row.get(TOKEN_WEIGHTS) or [float(label != IGNORED) for label in row["labels"]] for row in rows]
        batch[TOKEN_WEIGHTS] = padded([*weights, *others], labels.shape[1])
        batch[REFERENCE] = padded([*(row.get(REFERENCE, []) for row in rows), *others], labels.shape[1])
        return batch


@dataclass(frozen=True)
class Counts:
    """Numbers of what losses are means over, of a batch or of several.

    Attributes:
        weighted: tokens of unwanted answers whose weight is not 0.
        tokens: tokens of unwanted answers.
        answers: unwanted answers.
        retained: tokens of chosen answers.
    """

    weighted: float = 0
    tokens: float = 0
    answers: float = 0
    retained: float = 0


def count(batches: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """The counts of batches as int64 ``[4]``, in the order of :class:`Counts`; rows without labels count nothing."""
    total = torch.zeros(4, dtype=torch.int64)
    for batch in batches:
        inside = batch["labels"][:, 1:] != IGNORED
        weighted = inside & (batch[TOKEN_WEIGHTS][:, 1:] != 0)
        retained = batch["retain_labels"][:, 1:] != IGNORED
        found = [weighted.sum(), inside.sum(), inside.any(1).sum(), retained.sum()]
        total += torch.stack(found).cpu()
    return total
