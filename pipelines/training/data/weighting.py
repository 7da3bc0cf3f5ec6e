"""Weights of single tokens in training: read for the rows that are trained on, kept beside their tokens, and padded.

Rows for SFT have a column ``token_weights``, as long as ``input_ids`` and 0 where nothing is labelled; preference pairs
have ``chosen_weights`` and ``rejected_weights``, as long as the completions. Labels are left as they are: what weighs 0
is taken out of them where the loss is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import datasets
import pyarrow as pa
import torch
from torch import Tensor

from data_registry.core.errors import ArtifactError
from pipelines.configs.train import TrainConfig
from pipelines.token_weights.opening import answer_tokens, open_token_weights
from pipelines.tokens.conversations import place_of_row
from pipelines.tokens.labels import IGNORED
from pipelines.tokens.pairs import SIDES, Pair
from pipelines.training.data.heldout import training_row_numbers
from pipelines.training.data.per_token import CollatorAround, with_column

TOKEN_WEIGHTS: Final = "token_weights"
SIDE_WEIGHTS: Final = {side: f"{side}_weights" for side in SIDES}
REFERENCE: Final = "ref_rejected_token_logps"
IN_FLOAT32: Final = (TOKEN_WEIGHTS, REFERENCE)
"""What batches have for every token in float32, also where the engine computes in another type."""

Weights = list[list[float]]


def read_weights(config: TrainConfig, side: str, completions: Sequence[Sequence[int]], *, task: str) -> Weights:
    """The weights of the answers that a run trains on, from the artifact ``config.token_weights``.

    Args:
        config: the options of the command.
        side: ``answer`` for SFT, ``chosen`` or ``rejected`` of preference pairs.
        completions: the tokens of the answers in the order of the rows; of SFT those of
            :func:`pipelines.token_weights.opening.answer_tokens`.
        task: the task of the data set.

    Returns:
        for each answer a weight for each of its tokens, at least 0; at least one is greater than 0.

    Raises:
        InputError: there is no artifact.
        ArtifactError: it is for other tokens, lacks the side, or its weights cannot be used.
    """
    assert config.token_weights is not None
    numbers = training_row_numbers(config, task)
    found = open_token_weights(config.token_weights).of_rows(side, completions, rows=numbers)
    for row, weights in enumerate(found):
        for token, weight in enumerate(weights, start=1):
            if not (math.isfinite(weight) and weight >= 0):
                raise ArtifactError(
                    f"a weight in '{config.token_weights}' is {weight}, and should be a number from 0 on",
                    where=f"{place_of_row('', row if numbers is None else numbers[row])}, {side}, token {token}",
                    fix="compute the weights again with ogpsa score-tokens",
                )
    return found


def refuse_no_weight(config: TrainConfig, *weights: Weights) -> None:
    """Refuse weights of which none is greater than 0.

    Raises:
        ArtifactError: nothing would be trained.
    """
    if not any(any(row) for side in weights for row in side):
        raise ArtifactError(
            f"all weights in '{config.token_weights}' of the rows that are trained on are 0: nothing is left to train",
            fix="compute weights by another rule or map:  ogpsa score-tokens MODEL --data DATA --weights MAP --out DIR",
        )


def weighted_rows(config: TrainConfig, rows: datasets.Dataset) -> datasets.Dataset:
    """Tokenised rows for SFT with the column ``token_weights``, float32.

    Args:
        config: the options of the command, with ``token_weights``.
        rows: rows with ``input_ids`` and ``labels``, all that are trained on, in their order.

    Raises:
        OgpsaError: as for :func:`read_weights`.
    """
    labels: list[list[int]] = rows["labels"][:]
    found = read_weights(config, "answer", [answer_tokens(each) for each in labels], task="sft")
    refuse_no_weight(config, found)
    return _with_column(rows, [_beside(each, weights) for each, weights in zip(labels, found, strict=True)])


def unweighted_rows(rows: datasets.Dataset) -> datasets.Dataset:
    """Rows whose labelled tokens all weigh 1, to be trained on beside those of :func:`weighted_rows`."""
    labels: list[list[int]] = rows["labels"][:]
    return _with_column(rows, [_beside(each, [1.0] * len(answer_tokens(each))) for each in labels])


def _beside(labels: Sequence[int], weights: Sequence[float]) -> list[float]:
    """The weights of labelled tokens at their positions. The first token has none before it, and is never trained."""
    waiting = iter(weights)
    return [0.0 if index == 0 or label == IGNORED else next(waiting) for index, label in enumerate(labels)]


def _with_column(rows: datasets.Dataset, values: Weights) -> datasets.Dataset:
    return with_column(rows, TOKEN_WEIGHTS, pa.array(values, pa.list_(pa.float32())))


def weighted_pairs(config: TrainConfig, pairs: Sequence[Pair]) -> list[Pair]:
    """Tokenised pairs with ``chosen_weights`` and ``rejected_weights``; a side that has none in the artifact weighs 1.

    Args:
        config: the options of the command, with ``token_weights``.
        pairs: all pairs that are trained on, in their order.

    Raises:
        OgpsaError: as for :func:`read_weights`.
    """
    assert config.token_weights is not None
    there = open_token_weights(config.token_weights).sides
    if not any(side in there for side in SIDES):
        there = SIDES  # The side that is asked for first is missing, and is said to be.
    found = {
        side: read_weights(config, side, [pair[f"{side}_ids"] for pair in pairs], task="preference")
        if side in there
        else [[1.0] * len(pair[f"{side}_ids"]) for pair in pairs]
        for side in SIDES
    }
    refuse_no_weight(config, *(found[side] for side in SIDES if side in there))
    return [{**pair, **{SIDE_WEIGHTS[side]: found[side][index] for side in SIDES}} for index, pair in enumerate(pairs)]


class WeightingCollator(CollatorAround):
    """A collator of TRL whose batches have what rows have for single tokens: ``token_weights`` and reference values.

    Batches of rows without any, as held-out rows are, stay as they are.
    """

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch.

        Returns:
            What ``inner`` makes, with R rows of L tokens; ``token_weights`` ``[R, L]`` float32 where rows have weights,
            0 outside the answers; and of pairs ``ref_rejected_token_logps`` ``[R / 2, L]`` float32 where they have
            these, 0 outside the answers.
        """
        batch: dict[str, Any] = self._inner(list(rows))
        width = batch["input_ids"].shape[1]
        first = rows[0]
        if TOKEN_WEIGHTS in first:
            values = [list(row[TOKEN_WEIGHTS]) for row in rows]
            if self.padding_free:
                values = [[value for row in values for value in row]]
            batch[TOKEN_WEIGHTS] = padded(values, width)
        if SIDE_WEIGHTS[SIDES[0]] in first:
            by_side = [_after_prompt(row, row[SIDE_WEIGHTS[side]]) for side in SIDES for row in rows]
            batch[TOKEN_WEIGHTS] = padded(by_side, width)
        if REFERENCE in first:
            batch[REFERENCE] = padded([_after_prompt(row, row[REFERENCE]) for row in rows], width)
        return batch


def _after_prompt(pair: Mapping[str, Any], values: Sequence[float]) -> list[float]:
    return [*([0.0] * len(pair["prompt_ids"])), *values]


def padded(values: Sequence[Sequence[float]], width: int) -> Tensor:
    """Lists of at most ``width`` numbers as float32 ``[len(values), width]``, with zeros on the right."""
    result = torch.zeros(len(values), width)
    for index, row in enumerate(values):
        result[index, : len(row)] = torch.tensor(row, dtype=torch.float32)
    return result


def counted_labels(batch: Mapping[str, Tensor]) -> Tensor:
    """The labels ``[R, L]`` of a batch for SFT, ``IGNORED`` where a token weighs nothing."""
    labels = batch["labels"]
    return labels.masked_fill(batch[TOKEN_WEIGHTS].to(labels.device) == 0, IGNORED)


def kept_in_float32(prepared: dict[str, Any], inputs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch as transformers prepared it, with what single tokens have in float32 again.

    transformers casts all numbers to the engine's type, in which log-probabilities are off by what they differ, and
    sums of weights are too.
    """
    return prepared | {name: inputs[name].to(device) for name in IN_FLOAT32 if name in inputs}
