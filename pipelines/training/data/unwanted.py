"""Rows of ``train-npo``: the rejected answers, which are to be forgotten, and the chosen ones beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from pipelines.tokens.labels import IGNORED
from pipelines.tokens.pairs import Pair

COLUMNS: Final = ("input_ids", "labels", "token_weights", "ref_logps", "retain_ids", "retain_labels")
PER_TOKEN: Final = ("token_weights", "ref_logps")
"""What rows and batches have in float32 for every token of a rejected answer."""


def unwanted_rows(
    pairs: Sequence[Pair],
    *,
    reference: Sequence[Sequence[float]] | None,
    weights: Sequence[Sequence[float]] | None,
    with_chosen: bool,
) -> list[dict[str, Any]]:
    """Rows of tokens for :class:`UnwantedCollator`.

    Args:
        pairs: the tokenised pairs.
        reference: for each pair the log-probabilities of the tokens of its rejected answer under the starting model.
        weights: for each pair the weights of these tokens; all are 1 where there are none.
        with_chosen: whether the chosen answers are needed beside them.

    Returns:
        Rows with ``input_ids`` and ``labels`` of prompt and rejected answer; where they are given ``token_weights`` and
        ``ref_logps``, as long as these and 0 on the prompt; and ``retain_ids`` and ``retain_labels`` of prompt and
        chosen answer.
    """
    rows = []
    for index, pair in enumerate(pairs):
        prompt, answer = pair["prompt_ids"], pair["rejected_ids"]
        row = {"input_ids": [*prompt, *answer], "labels": [IGNORED] * len(prompt) + answer}
        for name, values in zip(PER_TOKEN, (weights, reference), strict=True):
            if values is not None:
                assert len(values[index]) == len(answer), "a number for every token of the answer"
                row[name] = [0.0] * len(prompt) + list(values[index])
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
            the chosen ones; ``token_weights`` and ``ref_logps`` float32, 0 outside the unwanted answers.
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
        batch["token_weights"] = _padded(rows, "token_weights", (labels != IGNORED).float())
        batch["ref_logps"] = _padded(rows, "ref_logps", torch.zeros(labels.shape))
        return batch


def _padded(rows: Sequence[Mapping[str, Any]], name: str, absent: Tensor) -> Tensor:
    """The numbers of rows, with those of ``absent`` where rows have none."""
    for index, row in enumerate(rows):
        if name in row:
            absent[index] = 0.0
            absent[index, : len(row[name])] = torch.tensor(row[name], dtype=torch.float32)
    return absent


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
        weighted = inside & (batch["token_weights"][:, 1:] != 0)
        retained = batch["retain_labels"][:, 1:] != IGNORED
        found = [weighted.sum(), inside.sum(), inside.any(1).sum(), retained.sum()]
        total += torch.stack(found).cpu()
    return total
