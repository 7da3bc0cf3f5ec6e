"""Which data set every token of a row is of, so that training can count tokens by their source.

Rows have a column ``token_sources``: for every token that the model reads of the row the number of its data set. It
goes through shuffling and packing with the row, and is taken out where rows become a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipelines.configs.train import TrainConfig
from pipelines.training.data.per_token import CollatorAround, with_column

SOURCES: Final = "token_sources"


def source_names(config: TrainConfig) -> list[str]:
    """The names of all that a run trains on: its data sets, replay, and anchors, each with its role before it.

    The rows' own data sets come first, in the order of the numbers in their column, and then the anchors.
    """
    pooled = getattr(config, "pooled_replay", None)
    anchors = () if config.anchors is None else config.anchors.paths
    paths = [
        *(("data", path) for path in config.data),
        *(() if pooled is None else [("replay", pooled)]),
        *(("anchor", path) for path in anchors),
    ]
    short = [f"{role}/{path.name}" for role, path in paths]
    return [
        name if short.count(name) == 1 else f"{role}/{path}" for name, (role, path) in zip(short, paths, strict=True)
    ]


def with_sources(rows: datasets.Dataset, sources: Sequence[int]) -> datasets.Dataset:
    """Tokenised rows for SFT with the column ``token_sources``, int8; the number of a row's data set for each token."""
    lengths = [len(ids) for ids in rows["input_ids"]]
    offsets = pa.array([0, *accumulate(lengths)], pa.int32())
    column = pa.ListArray.from_arrays(offsets, pa.array(np.repeat(np.array(sources, dtype=np.int8), lengths)))
    return with_column(rows, SOURCES, column)


class SourcesCollator(CollatorAround):
    """A collator whose batches say how many tokens they have of each data set.

    Args:
        inner: the collator that makes batches of rows without the column.
        num_sources: the number of data sets, S.
    """

    def __init__(self, inner: Callable[[list[dict[str, Any]]], dict[str, Any]], num_sources: int) -> None:
        super().__init__(inner)
        self._num_sources = num_sources

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the inner collator makes, with ``token_sources`` ``[S]`` int64 where rows have them."""
        sources = [row[SOURCES] for row in rows if SOURCES in row]
        batch: dict[str, Any] = self._inner(
            [{name: value for name, value in row.items() if name != SOURCES} for row in rows]
        )
        if sources:
            flat = np.concatenate([np.asarray(of_row, dtype=np.int64) for of_row in sources])
            batch[SOURCES] = torch.from_numpy(np.bincount(flat, minlength=self._num_sources))
        return batch


class SourceTokens:
    """Counts the tokens that a run has trained on, by their source, over all ranks.

    Args:
        names: the names of the sources.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._done = [0.0] * len(self.names)
        self._step: list[Tensor] = []
        self._beside: Mapping[int, int] = {}

    def begin_step(self, batches: Sequence[dict[str, Any]], beside: Mapping[int, int]) -> None:
        """Take the counts out of this rank's batches of a step; they count once the step is done.

        Args:
            batches: the batches, of which each that has ``token_sources`` loses them.
            beside: tokens of the step that are in no batch, by the number of their source; of this rank's share.
        """
        self._step = [batch.pop(SOURCES) for batch in batches if SOURCES in batch]
        self._beside = beside

    def end_step(self) -> None:
        """The optimizer has done the step."""
        step = torch.stack(self._step).sum(0).tolist() if self._step else []
        for number, tokens in enumerate(step):
            self._done[number] += tokens
        for number, tokens in self._beside.items():
            self._done[number] += tokens
        self._step, self._beside = [], {}

    def figures(self, over_ranks: Callable[[Sequence[float]], list[float]]) -> dict[str, float]:
        """The tokens of each source since the run began. Collective.

        Args:
            over_ranks: sums numbers over all ranks.
        """
        return {f"tokens/{name}": round(total) for name, total in zip(self.names, over_ranks(self._done), strict=True)}

    def state(self) -> list[float]:
        """This rank's counts so far."""
        return list(self._done)

    def restore(self, parts: Sequence[Sequence[float]], mine: int | None, num_ranks: int) -> None:
        """Go on from the counts of a run that was stopped.

        Args:
            parts: the counts of its ranks; empty where it kept none.
            mine: the number of this rank; None where there were others than now, which all then share alike.
            num_ranks: the number of ranks now.
        """
        if mine is not None and parts:
            self._done = list(parts[mine])
        elif parts:
            self._done = [sum(column) / num_ranks for column in zip(*parts, strict=True)]
