"""The basis as a Python object: built in memory, made from rows, loaded from an artifact, saved as one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from data_registry.core.errors import BasisMismatchError, InputError
from pipelines.api.batches import BatchSet
from pipelines.api.models import bare_model, causal_model, loss_head
from pipelines.basis.description import BasisDescription, ObjectiveRecord
from pipelines.basis.objectives.finding import reference_loss
from pipelines.basis.objectives.tokens import token_loss_sum
from pipelines.basis.opening import check_fit
from pipelines.basis.reading import open_basis
from pipelines.basis.references import ReferenceSet, objectives_for_rank, read_references, write_references
from pipelines.basis.storage import DTYPES, GRAM_FILE, check_finite, read_rows, read_whole_rows, write_whole_rows
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.config import CommandConfig
from pipelines.core.job import is_main
from pipelines.core.making import Wanted, make
from pipelines.engine.shards.access import ShardAccess
from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.gradients import projection
from pipelines.passes.gradients import Batch, LossSum, Objective
from pipelines.weights.writing import write_tensors

OWN_LOSS = "own"
"""The kind of an objective whose loss is a function of the user's."""


class SavedBasisConfig(CommandConfig):
    """What distinguishes a basis that was saved from Python from another one."""

    takes_other_names: ClassVar[bool] = False
    objectives: list[str]
    rows: str


class Basis:
    """Rows that span the reference subspace of a model, and what is needed to compute them again.

    Made by :func:`pipelines.build_basis`, :meth:`load` or :meth:`from_rows`. It is not changed by training: refreshes
    belong to the run that makes them.

    Attributes:
        description: objectives, shapes, dtype and singular values, as ``basis.json`` has them.
        directory: where it was loaded from; None for one that is in memory.
    """

    def __init__(
        self,
        description: BasisDescription,
        rows: Mapping[str, Tensor] | None,
        *,
        directory: Path | None = None,
        sets: Sequence[BatchSet] = (),
        loss: LossSum | None = None,
    ) -> None:
        self.description, self.directory = description, directory
        self._rows = dict(rows) if rows is not None else None
        self._sets, self._loss = list(sets), loss

    # --- What it is ---

    @property
    def names(self) -> list[str]:
        """The names of the k objectives, in the order of the rows."""
        return [record.name for record in self.description.objectives]

    @property
    def rank(self) -> int:
        """The number of rows k of every parameter."""
        return self.description.rank

    @property
    def losses(self) -> dict[str, float]:
        """The mean loss of each objective where the rows were computed."""
        return {record.name: record.loss for record in self.description.objectives}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter that has rows."""
        return {name: tuple(shape) for name, shape in self.description.shapes.items()}

    @property
    def rows(self) -> dict[str, Tensor]:
        """``[k, n]`` for every parameter of ``n`` elements, float32 or bfloat16.

        Rows of a basis that was loaded are read at every use of this attribute; they can be as large as k models.
        """
        if self._rows is not None:
            return dict(self._rows)
        assert self.directory is not None
        return read_whole_rows(self.directory, list(self.description.shapes))

    @property
    def can_refresh(self) -> bool:
        """Whether the rows can be computed again without further batches."""
        return self.directory is not None or bool(self._sets)

    def __repr__(self) -> str:
        return f"Basis({', '.join(self.names)}: {self.rank} rows of {len(self.shapes)} parameters)"

    # --- Where it comes from, and goes ---

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = False) -> Basis:
        """Open a basis that ``ogpsa build-basis`` or :meth:`save` wrote. Rows are read where they are used.

        Args:
            path: the directory.
            verify: compare the contents of its files with their hashes too, not only presence and size.

        Raises:
            InputError: there is no artifact.
            ArtifactError: it is no basis, or damaged.
        """
        directory = Path(path)
        description, _ = open_basis(directory, hashes=verify)
        return cls(description, None, directory=directory)

    @classmethod
    def from_rows(cls, model: Any, rows: Mapping[str, Tensor], names: Sequence[str] | None = None) -> Basis:
        """A basis of rows that were computed elsewhere.

        Args:
            model: the model that they belong to; parameters without ``requires_grad`` have no rows.
            rows: for every trained parameter, by its name in ``model.named_parameters()``, ``[k, *shape]`` or
                ``[k, n]`` of float32 or bfloat16. They need not be orthogonal or independent.
            names: the names of the k rows; by default ``row0``, ``row1`` and so on.

        Raises:
            BasisMismatchError: a parameter has no rows, or rows have no parameter or another shape.
            NumericsError: a row is not finite.
        """
        access = ReplicatedAccess(bare_model(model))
        here = dict(zip(access.names, access.shapes, strict=True))
        odd = next((name for name in {**here, **rows} if name not in rows or name not in here), None)
        if odd is not None:
            raise BasisMismatchError(
                f"{'rows are missing for' if odd in here else 'there are rows for'} '{odd}', which is "
                f"{'' if odd in here else 'not '}a trained parameter of this {type(causal_model(model)).__name__}",
                fix="give rows for every parameter with requires_grad, by its name in model.named_parameters()",
            )
        k = next(iter(rows.values())).shape[0] if rows else 0
        flat = {name: _flat(name, rows[name], here[name], k) for name in here}
        called = list(names) if names is not None else [f"row{number}" for number in range(k)]
        if len(called) != k or k == 0 or len(set(called)) != k:
            raise InputError(f"there are {k} rows and the names {called}: each row needs a name of its own")
        records = [_record(name, OWN_LOSS, "rows given in Python", 0, 0, float("nan")) for name in called]
        return cls(describe(access, flat, records, model, batch_size=1), flat)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the basis as an artifact, which ``--basis`` of the commands takes. Every rank may call it.

        Its manifest does not name the model's files, so that training commands refresh it once at their start.

        Args:
            path: the directory, which appears whole or not at all.
            overwrite: replace another artifact that lies there.

        Raises:
            InputError: there are no batches to keep with it, their tensors cannot be kept, or it cannot be written.
            ArtifactError: something else lies there.
        """
        if not self._sets or self.description.kind == OWN_LOSS:
            raise InputError(
                f"{self!r} cannot be saved: an artifact keeps the samples of its token loss, for refreshes",
                fix="save one that build_basis made from batches with labels; copy the directory of a loaded one",
            )
        references = [ReferenceSet(each.name, each.samples()) for each in self._sets]
        rows = self.rows
        digest = hashlib.sha256()
        for name, row in rows.items():
            digest.update(name.encode())
            digest.update(row.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        config = SavedBasisConfig(objectives=self.names, rows=digest.hexdigest())

        def write(writer: ArtifactWriter) -> None:
            if not is_main():
                return
            grams = write_whole_rows(writer.path, rows)
            write_tensors(writer.path / GRAM_FILE, dict(zip(rows, grams, strict=True)))
            write_references(writer.path, references)
            self.description.write(writer.path)
            writer.summary = self.description.summary()

        return make(Wanted(Path(path), "basis", config, overwrite=overwrite), write).path

    # --- What training takes of it ---

    def check(self, access: ShardAccess, architecture: str) -> None:
        """Refuse a model whose trained parameters are others.

        Raises:
            BasisMismatchError: the message names the first parameter that differs.
        """
        check_fit(self.description, self.directory, access, architecture)

    def slices(self, access: ShardAccess) -> list[Tensor]:
        """This rank's parts: ``[k, numel]`` for each of its shards, where gradients are."""
        if self._rows is None:
            assert self.directory is not None
            return read_rows(self.directory, access)
        device = access.rows_device()
        return [
            self._rows[access.names[shard.tensor]][:, shard.start : shard.start + shard.numel].contiguous().to(device)
            for shard in access.shards
        ]

    def objectives(self, rank: int, world_size: int, pad_token_id: int) -> tuple[list[Objective], LossSum]:
        """This rank's batches for a refresh, and the loss of a batch; without batches where there are none.

        Args:
            rank: this rank.
            world_size: the number of ranks that share the batches.
            pad_token_id: the id of the token that pads the samples of an artifact.
        """
        if self.directory is None:
            sets = [each.objective(rank, world_size) for each in self._sets]
            return sets or [Objective(name, [], [], 1.0) for name in self.names], self._loss or headed(token_loss_sum)
        found = objectives_for_rank(
            read_references(self.directory),
            batch_size=self.description.batch_size,
            pad_token_id=pad_token_id,
            rank=rank,
            world_size=world_size,
        )
        return found, headed(reference_loss(self.description.kind).loss_sum(self.description.beta))


def headed(loss: LossSum) -> LossSum:
    """A loss that computes through the loss head, added to the model for as long as the forward pass takes."""

    def of(model: Any, batch: Batch) -> Tensor:
        with loss_head(model):
            return loss(model, batch)

    return of


def describe(
    access: ShardAccess, rows: Mapping[str, Tensor], records: list[ObjectiveRecord], model: Any, *, batch_size: int
) -> BasisDescription:
    """The description of rows that were computed in this process.

    Raises:
        NumericsError: a row is not finite.
    """
    grams = torch.stack([projection.gram(row) for row in rows.values()])
    check_finite(access.names, grams)
    inner = causal_model(model)
    dtype = next(iter(rows.values())).dtype
    return BasisDescription(
        objectives=records,
        dtype=next(name for name, known in DTYPES.items() if known == dtype),
        rank=len(records),
        seed=0,
        batch_size=batch_size,
        model=str(getattr(inner, "name_or_path", "") or type(inner).__name__),
        # What the model's files were is not known here, so that nothing takes the rows for theirs.
        model_fingerprint="",
        architecture=type(inner).__name__,
        lora=None,
        shapes={name: list(shape) for name, shape in zip(access.names, access.shapes, strict=True)},
        singular_values=torch.linalg.eigvalsh(grams.sum(0)).clamp_min(0).sqrt().flip(0).tolist(),
    )


def record_of(each: BatchSet, kind: str, loss: float) -> ObjectiveRecord:
    """The record of an objective that was computed from batches."""
    num_rows = sum(len(next(iter(batch.values()))) for batch in each.batches)
    return _record(each.name, kind, each.digest(), num_rows, round(sum(each.units)), loss)


def _record(name: str, kind: str, digest: str, rows: int, tokens: int, loss: float) -> ObjectiveRecord:
    return ObjectiveRecord(
        name=name, kind=kind, data="given in Python", data_fingerprint=digest, num_samples=rows, num_tokens=tokens,
        loss=loss,
    )  # fmt: skip


def _flat(name: str, rows: Tensor, shape: Sequence[int], k: int) -> Tensor:
    numel = torch.Size(shape).numel()
    if rows.dtype not in DTYPES.values():
        raise InputError(f"the rows of '{name}' are {rows.dtype}", fix="give float32 or bfloat16")
    if list(rows.shape) not in ([k, *shape], [k, numel]):
        raise BasisMismatchError(
            f"the rows of '{name}' are {list(rows.shape)}; {[k, *shape]} or {[k, numel]} is needed",
            fix="every parameter has one row for each of the k objectives",
        )
    return rows.detach().reshape(k, numel)
