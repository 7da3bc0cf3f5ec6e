"""What a model expected at each place of its answers, computed by all processes and stored batch by batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from data_registry.core import stopping
from pipelines.core.job import barrier, rank, world_size
from pipelines.core.placing import place_file
from pipelines.core.progress import Progress
from pipelines.engine import processes
from pipelines.passes.distributions import TopLogProbs, batches_by_size, places_of, row_distributions
from pipelines.sampling.tokens import Tokens


class Expectations:
    """The distributions of rows, stored in a folder of the unfinished artifact so that a killed run goes on.

    Args:
        rows: the tokens of each row.
        k: the number of tokens that are kept at each place.
        vocabulary: the number of tokens that the model knows.
        batch_size: most rows of one forward pass.
        folder: where batches are kept; the same on all processes.
        identity: a hash of all that the distributions depend on beside the tokens.
    """

    def __init__(
        self, rows: Sequence[Tokens], k: int, *, vocabulary: int, batch_size: int, folder: Path, identity: str
    ) -> None:
        self.k = min(k, vocabulary)
        self._rows, self._folder = rows, folder
        self._batches = batches_by_size([len(ids) for ids, _ in rows], batch_size, vocabulary)
        self._files = [folder / f"{self._name(batch, identity)}.safetensors" for batch in self._batches]

    @property
    def tokens(self) -> list[list[int]]:
        """For each row the tokens that follow its places."""
        return [[ids[place + 1] for place in places_of(labels)] for ids, labels in self._rows]

    def compute(self, model: Any, device: torch.device) -> None:
        """Compute what is missing. Collective over the processes of the job.

        Raises:
            Preempted: a process was asked to stop; what was computed is stored.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        barrier()
        mine = list(range(rank(), len(self._batches), world_size()))
        most = -(-len(self._batches) // world_size())
        progress = Progress("log-probabilities", total=len(mine), unit="batches")
        with stopping.deferred(), progress:
            for turn in range(most):
                # Every process comes here as often as the others, and all learn whether one was asked to stop.
                processes.stop_point(device)
                if turn < len(mine):
                    self._compute(mine[turn], model)
                    progress.advance()
            processes.stop_point(device)
        barrier()

    def rows(self) -> Iterator[TopLogProbs]:
        """The distributions of all rows, in their order."""
        place = {row: (file, index) for file, batch in zip(self._files, self._batches, strict=True)
                 for index, row in enumerate(batch)}  # fmt: skip
        for row in range(len(self._rows)):
            file, index = place[row]
            with safe_open(file, framework="pt") as stored:
                yield TopLogProbs(*(stored.get_tensor(f"{index}.{name}") for name in ("ids", "log_probs", "rest")))

    def _compute(self, number: int, model: Any) -> None:
        file, batch = self._files[number], self._batches[number]
        if _is_whole(file, 3 * len(batch)):
            return
        found = row_distributions(model, [self._rows[row] for row in batch], self.k)
        tensors = {
            f"{index}.{name}": getattr(row, name).contiguous()
            for index, row in enumerate(found)
            for name in ("ids", "log_probs", "rest")
        }
        aside = file.with_suffix(f".{rank()}")
        save_file(tensors, aside)
        place_file(aside, file)

    def _name(self, batch: Sequence[int], identity: str) -> str:
        tokens = [[list(part) for part in self._rows[row]] for row in batch]
        return hashlib.sha256(json.dumps([identity, self.k, tokens]).encode()).hexdigest()[:24]


def _is_whole(file: Path, num_tensors: int) -> bool:
    try:
        with safe_open(file, framework="pt") as stored:
            return len(stored.keys()) == num_tensors
    except (FileNotFoundError, SafetensorError):
        return False
