"""Several prepared data sets that are trained on together: all rows of each, or as many as ``--weights`` says.

The rows of a run are chosen once, from the data sets, the weights and the seed alone; the trainer shuffles them anew
for each epoch. A run that is resumed, or that has another number of processes, therefore trains on the same rows.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import datasets
import numpy as np

from data_registry.core.errors import ConfigError, first_line
from pipelines.configs.train import TrainConfig

logger = logging.getLogger(__name__)


def mixed_rows(config: TrainConfig, sets: Sequence[datasets.Dataset]) -> datasets.Dataset:
    """The rows to train on: those of all data sets, one set after another.

    Args:
        config: the command's options, whose ``weights`` and seed count.
        sets: the rows of each data set of ``config.data``, in this order; not modified.

    Raises:
        ConfigError: a data set has no rows, or their columns do not fit together.
    """
    if len(sets) == 1:
        return sets[0]
    for path, rows in zip(config.data, sets, strict=True):
        if len(rows) == 0:
            raise ConfigError(f"no row of '{path}' is left to train on")
    parts = list(sets)
    if config.weights:
        numbers = row_numbers([len(rows) for rows in sets], config.weights, seed=config.order_seed)
        parts = [rows.select(chosen) for rows, chosen in zip(sets, numbers, strict=True)]
    try:
        return datasets.concatenate_datasets(parts)
    except ValueError as error:
        raise ConfigError(f"the data sets {_listed(config.data)} do not fit together: {first_line(error)}") from error


def row_numbers(sizes: Sequence[int], weights: Sequence[float], *, seed: int) -> list[list[int]]:
    """The rows that each data set gives to an epoch.

    With n_i rows and weight w_i, set i gives round(w_i max_j(n_j / w_j)) rows: the epoch is the shortest that has the
    shares and leaves no row out. A set that gives more rows than it has is repeated whole, and the rest is drawn
    without replacement.

    Args:
        sizes: the number of rows of each data set, each at least 1.
        weights: the weight of each, greater than 0.
        seed: the seed of what is drawn.

    Returns:
        for each data set its row numbers, in ascending order within each repetition.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    length = max(size / weight for size, weight in zip(sizes, exact, strict=True))
    numbers = []
    for index, (size, weight) in enumerate(zip(sizes, exact, strict=True)):
        repetitions, rest = divmod(round(weight * length), size)
        drawn = np.random.default_rng([seed, index]).permutation(size)[:rest]
        numbers.append([*list(range(size)) * repetitions, *sorted(drawn.tolist())])
    return numbers


@dataclass(frozen=True)
class Share:
    """What one of several data sets gives to an epoch.

    Attributes:
        rows: the number of rows, repeated ones as often as they are used.
        tokens: the number of tokens that the model reads of them.
    """

    rows: int
    tokens: int


def sets_of_rows(config: TrainConfig, sizes: Sequence[int], kept: Sequence[int]) -> list[int]:
    """The number of the data set of each row, counted from 0; the arguments are those of :func:`shares`."""
    if config.weights and len(sizes) > 1:
        sizes = [len(numbers) for numbers in row_numbers(sizes, config.weights, seed=config.order_seed)]
    ends = list(accumulate(sizes))
    return [bisect_right(ends, number) for number in kept]


def shares(config: TrainConfig, sizes: Sequence[int], kept: Sequence[int], lengths: Sequence[int]) -> dict[str, Share]:
    """What each data set gives to an epoch, by its path; said in the log where there are several.

    Args:
        config: the command's options.
        sizes: the number of rows of each data set that can be trained on, before any is repeated.
        kept: the numbers of the rows of :func:`mixed_rows` that were not left out as too long, ascending.
        lengths: the number of tokens of each of these.
    """
    rows, tokens = [0] * len(sizes), [0] * len(sizes)
    for which, length in zip(sets_of_rows(config, sizes, kept), lengths, strict=True):
        rows[which] += 1
        tokens[which] += length
    found = {str(path): Share(*each) for path, *each in zip(config.data, rows, tokens, strict=True)}
    if len(found) > 1:
        whole = max(1, sum(tokens))
        for name, share in found.items():
            logger.info(
                "%s: %d rows and %d tokens an epoch, %.1f %% of all tokens",
                name, share.rows, share.tokens, 100 * share.tokens / whole,
            )  # fmt: skip
    return found


def data_text(config: TrainConfig, num_rows: int) -> str:
    """What is trained on, as one phrase for the plan."""
    shares = f", in shares {':'.join(f'{weight:g}' for weight in config.weights)}" if config.weights else ""
    return f"{', '.join(map(str, config.data))}: {num_rows} rows{shares}"


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(f"'{path}'" for path in paths)
