"""What a model made of rows, computed by all processes and stored batch by batch, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from data_registry.core import stopping
from pipelines.core.job import barrier, rank, world_size
from pipelines.core.placing import place_file
from pipelines.core.progress import Progress
from pipelines.engine import processes
from pipelines.passes.distributions import TopLogProbs, batches_by_size, places_of, row_distributions
from pipelines.samples.tokens import Tokens

Look = Callable[[Sequence[Tokens]], Sequence[Mapping[str, Tensor]]]
"""A pass through a model: of a batch of rows, the tensors of each row by name."""

LOG_PROBS: Final = ("ids", "log_probs", "rest")


class Expectations:
    """Tensors of rows, kept in a folder of an unfinished artifact.

    Args:
        rows: the tokens of each row.
        names: the names of a row's tensors.
        batches: the numbers of the rows of each pass.
        folder: where batches are kept; the same on all processes.
        identity: a hash of all that the tensors depend on beside the tokens.
        label: what the progress bar shows.
    """

    def __init__(
        self, rows: Sequence[Tokens], names: Sequence[str], *, batches: Sequence[Sequence[int]], folder: Path,
        identity: str, label: str = "log-probabilities",
    ) -> None:  # fmt: skip
        self._rows, self._names, self._batches = rows, names, batches
        self._folder, self._label = folder, label
        self._files = [folder / f"{self._name(batch, identity)}.safetensors" for batch in batches]

    @property
    def tokens(self) -> list[list[int]]:
        """For each row the tokens that follow its places."""
        return [[ids[place + 1] for place in places_of(labels)] for ids, labels in self._rows]

    def compute(self, look: Look, device: torch.device, *, together: bool = False) -> None:
        """Compute what is missing. Collective over the processes of the job.

        Args:
            look: the pass.
            device: the device of this process.
            together: whether a pass needs all processes, as under ZeRO 3: each then makes as many, also for nothing.

        Raises:
            Preempted: a process was asked to stop; what was computed is stored.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        barrier()
        mine = list(range(rank(), len(self._batches), world_size()))
        most = -(-len(self._batches) // world_size())
        progress = Progress(self._label, total=len(mine), unit="batches")
        with stopping.deferred(), progress:
            for turn in range(most):
                # Every process comes here as often as the others, and all learn whether one was asked to stop.
                processes.stop_point(device)
                if turn < len(mine):
                    self._compute(mine[turn], look, always=together)
                    progress.advance()
                elif together:
                    look([self._rows[row] for row in self._batches[0]])
            processes.stop_point(device)
        barrier()

    def rows(self) -> Iterator[dict[str, Tensor]]:
        """The tensors of all rows, in their order."""
        place = {row: (file, index) for file, batch in zip(self._files, self._batches, strict=True)
                 for index, row in enumerate(batch)}  # fmt: skip
        for row in range(len(self._rows)):
            file, index = place[row]
            with safe_open(file, framework="pt") as stored:
                yield {name: stored.get_tensor(f"{index}.{name}") for name in self._names}

    def _compute(self, number: int, look: Look, *, always: bool) -> None:
        file, batch = self._files[number], self._batches[number]
        is_there = _is_whole(file, len(self._names) * len(batch))
        if is_there and not always:
            return
        found = look([self._rows[row] for row in batch])
        if is_there:
            return
        tensors = {
            f"{index}.{name}": tensor.contiguous() for index, row in enumerate(found) for name, tensor in row.items()
        }
        aside = file.with_suffix(f".{rank()}")
        save_file(tensors, aside)
        place_file(aside, file)

    def _name(self, batch: Sequence[int], identity: str) -> str:
        tokens = [[list(part) for part in self._rows[row]] for row in batch]
        return hashlib.sha256(json.dumps([identity, tokens]).encode()).hexdigest()[:24]


def log_probs_of_rows(
    rows: Sequence[Tokens], k: int, *, vocabulary: int, batch_size: int, folder: Path, identity: str
) -> Expectations:
    """The log-probabilities of rows at the places before their labelled tokens, for :func:`look_at_log_probs`.

    Args:
        rows: the tokens of each row.
        k: the number of tokens that are kept at each place.
        vocabulary: the number of tokens that the model knows.
        batch_size: most rows of one forward pass.
        folder: where batches are kept; the same on all processes.
        identity: a hash of all that the log-probabilities depend on beside the tokens.
    """
    batches = batches_by_size([len(ids) for ids, _ in rows], batch_size, vocabulary)
    return Expectations(rows, LOG_PROBS, batches=batches, folder=folder, identity=json.dumps([identity, k]))


def look_at_log_probs(model: Any, k: int) -> Look:
    """The pass for :func:`log_probs_of_rows`, through a whole model in evaluation mode."""
    return lambda rows: [by_name(found) for found in row_distributions(model, rows, k)]


def by_name(found: TopLogProbs) -> dict[str, Tensor]:
    """The tensors of a row by their names."""
    return {name: getattr(found, name) for name in LOG_PROBS}


def _is_whole(file: Path, num_tensors: int) -> bool:
    try:
        with safe_open(file, framework="pt") as stored:
            return len(stored.keys()) == num_tensors
    except (FileNotFoundError, SafetensorError):
        return False
