"""Reference batches as users give them: one set or several by name, checked before any of them is computed on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data_registry.core.errors import InputError
from pipelines.passes.dealing import split_rows
from pipelines.passes.gradients import Batch, Objective
from pipelines.tokens.labels import IGNORED

Batches = Iterable[Batch] | Mapping[str, Iterable[Batch]]
"""Batches of one set, or of several by name. A batch is a mapping of names to tensors, as the model takes it."""

_UNNAMED = "reference"


@dataclass(frozen=True)
class BatchSet:
    """The batches of one reference objective.

    Attributes:
        name: the name of the objective.
        batches: its batches, in order.
        units: for each batch the number of units that its loss is the sum over.
    """

    name: str
    batches: Sequence[Batch]
    units: Sequence[float]

    def objective(self, rank: int, world_size: int) -> Objective:
        """The objective as one rank sees it: ranks share the batches."""
        shared = list(split_rows(self.batches, 1, rank, world_size))
        return Objective(
            self.name, [part[0] for part, _ in shared], [weight for _, weight in shared], float(sum(self.units))
        )

    def samples(self) -> list[dict[str, list[int]]]:
        """The rows without their padding, for :meth:`Basis.save`.

        Raises:
            InputError: a batch has tensors that a basis does not keep.
        """
        found = []
        for number, batch in enumerate(self.batches):
            extra = sorted(set(batch) - {"input_ids", "attention_mask", "labels"})
            if extra or "input_ids" not in batch:
                raise InputError(
                    "a saved basis keeps input_ids and labels for its refreshes, and cannot keep "
                    + (f"'{extra[0]}'" if extra else "batches without input_ids"),
                    where=f"batch {number} of '{self.name}'",
                    fix="keep the basis in memory, or leave these tensors out",
                )
            mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
            for row, kept in enumerate(mask):
                found.append({key: batch[key][row][kept].tolist() for key in ("input_ids", "labels")})
        return found

    def digest(self) -> str:
        """A digest of all tensors."""
        digest = hashlib.sha256(self.name.encode())
        for batch in self.batches:
            for key in sorted(batch):
                value = batch[key].detach().cpu().contiguous()
                digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
                digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def batch_sets(batches: Batches, *, own_loss: bool, units: Any = None) -> list[BatchSet]:
    """The sets that a user's batches are, in order.

    Args:
        batches: as :func:`pipelines.build_basis` takes them.
        own_loss: whether the loss is the user's own, which may do without labels.
        units: a function that gives a batch's number of units; by default its labelled tokens.

    Raises:
        InputError: there are no batches, or one cannot be used; the message names it.
    """
    is_one = (
        isinstance(batches, Mapping) and bool(batches) and all(isinstance(value, Tensor) for value in batches.values())
    )
    if isinstance(batches, Mapping) and not is_one:
        named: Mapping[str, Any] = batches
    else:
        named = {_UNNAMED: [batches] if is_one else batches}
    if not named:
        raise InputError(
            "there are no reference batches", fix="give an iterable of batches, or a dict of name to batches"
        )
    return [_batch_set(str(name), given, own_loss=own_loss, units=units) for name, given in named.items()]


def _batch_set(name: str, given: Any, *, own_loss: bool, units: Any) -> BatchSet:
    if isinstance(given, Mapping):
        given = [given]
    if isinstance(given, str | bytes | Tensor) or not isinstance(given, Iterable):
        raise InputError(
            f"the reference batches '{name}' are a {type(given).__name__}, not an iterable of batches",
            fix="a batch is a dict of tensors as the model takes them, with input_ids, attention_mask and labels",
        )
    found = [_checked(batch, f"batch {number} of '{name}'", own_loss) for number, batch in enumerate(given)]
    if not found:
        raise InputError(f"the reference set '{name}' has no batches")
    counts = [float(units(batch) if units is not None else _num_labelled(batch, name)) for batch in found]
    if not sum(counts) > 0:
        raise InputError(
            f"the reference set '{name}' has nothing to take a gradient of: no token is labelled",
            fix=f"labels are the token ids of answers, and {IGNORED} elsewhere",
        )
    return BatchSet(name, found, counts)


def _checked(batch: Any, where: str, own_loss: bool) -> Batch:
    if not isinstance(batch, Mapping):
        raise InputError(f"a batch is a dict of tensors, and this is a {type(batch).__name__}", where=where)
    odd = [key for key, value in batch.items() if not isinstance(value, Tensor)]
    if odd:
        raise InputError(f"'{odd[0]}' is a {type(batch[odd[0]]).__name__}, not a tensor", where=where)
    if own_loss:
        return dict(batch)
    missing = [key for key in ("input_ids", "labels") if key not in batch]
    if missing:
        raise InputError(
            f"the batch has no '{missing[0]}'",
            where=where,
            fix="add it, or give a loss of your own:  build_basis(model, batches, loss=..., units=...)",
        )
    ids, labels = batch["input_ids"], batch["labels"]
    if ids.dim() != 2 or ids.shape != labels.shape:
        raise InputError(
            f"input_ids are {list(ids.shape)} and labels {list(labels.shape)}; both must be [rows, length]", where=where
        )
    return dict(batch)


def _num_labelled(batch: Batch, name: str) -> int:
    if "labels" not in batch:
        raise InputError(
            f"the batches of '{name}' have no labels, so that it is not known how many units they have",
            fix="give  units=lambda batch: ...,  the number of units of a batch",
        )
    return int((batch["labels"][:, 1:] != IGNORED).sum())
