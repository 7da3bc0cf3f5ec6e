"""Sharded projection: each rank touches only its own shards; one reduction of G x (k + 1) numbers joins the ranks.

Each of G groups of tensors has one subspace; with one group for each tensor, G is the number of tensors T.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from data_registry.core.errors import NumericsError
from pipelines.engine.shards.access import Shard, ShardAccess
from pipelines.gradients import masking, projection
from pipelines.transforms.scope import Groups, group_tensors


@dataclass(frozen=True)
class Measure:
    """The measurements of one projection, summed over ranks. Tensors are float64 on the compute device.

    Attributes:
        inner: ``[G, k]`` inner products of the rows with the vector before projection.
        squared: ``[G]`` squared norms of the vector before projection; NaN where they were not asked for.
        removed: ``[G]`` squared norms of the vector's components in the rows' spans.
    """

    inner: Tensor
    squared: Tensor
    removed: Tensor


@dataclass(frozen=True)
class Masked:
    """Which elements a mask leaves to training. The nearest update within the mask is off the masked rows.

    Attributes:
        frozen: for each shard ``[numel]`` bool, True for elements that may not move.
        trained: for each of all tensors the number of elements that may.
    """

    frozen: Sequence[Tensor]
    trained: Sequence[int]


class Projector:
    """Projects sharded vectors (gradients or updates) off the rows of a basis, group by group.

    Rows are on the vectors' device: the host, if the optimizer is offloaded. Numbers that are summed over ranks are on
    the compute device, where the ranks can reduce them.

    Args:
        access: this rank's shards.
        rows: one ``[k, numel]`` tensor for each shard, float32 or bfloat16, on ``access.rows_device()``.
        strength: the share of the component that is removed.
        groups: the groups of tensors that share a subspace; by default every tensor has its own.
        left_alone: the indices of tensors that neither count nor are changed, such as frozen ones.
        masked: the elements that training may not move, which rows and counts then lack; None where it may move all.

    Raises:
        NumericsError: a row is not finite.
    """

    def __init__(
        self,
        access: ShardAccess,
        rows: Sequence[Tensor],
        strength: float = 1.0,
        *,
        groups: Groups | None = None,
        left_alone: Collection[int] = (),
        masked: Masked | None = None,
    ) -> None:
        self.shards: list[Shard] = list(access.shards)
        self._masked = masked
        self._groups = groups or group_tensors(access.names, "tensor")
        self._left_alone = frozenset(left_alone)
        self.names = self._groups.names
        self.numels = [0] * len(self.names)
        for tensor, numel in enumerate(access.numels if masked is None else masked.trained):
            if tensor not in self._left_alone:
                self.numels[self._groups.of[tensor]] += numel
        self._reduce_over_ranks = not access.replicated
        self._device = access.device()
        self.strength = strength
        self.replace(rows)

    @property
    def num_rows(self) -> int:
        """Number of reference objectives k."""
        return self.grams.shape[-1]

    def replace(self, rows: Sequence[Tensor]) -> None:
        """Take new rows of the same shapes, after a refresh; where elements are masked, they are set to 0 in place."""
        self.rows = self.masked(rows)
        k = self.rows[0].shape[0] if self.rows else 0
        # A rank may hold no shard at all; it still takes part in every reduction.
        k = self._agree_on_rows(k)
        grams = torch.zeros(len(self.names), k, k, dtype=torch.float64, device=self._device)
        for index, block in enumerate(self.rows):
            if not self.leaves_alone(index):
                grams[self.group_of(index)] += projection.gram(block).to(self._device)
        self.grams = self._sum(grams)
        bad = (~torch.isfinite(self.grams)).flatten(1).any(1).nonzero()
        if len(bad):
            raise NumericsError(f"the reference gradient of {self.names[int(bad[0])]} is not finite")
        factors = projection.inverse_factor(self.grams)
        for index, numel in enumerate(self.numels):
            if not projection.is_projectable(numel, k):
                factors[index] = 0
        self.factors = factors
        self.ranks = projection.ranks(factors)
        self._exact = projection.needs_exact(self.grams, factors).tolist()

    def masked(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """The rows, with the elements that training may not move set to 0 in place."""
        if self._masked is not None:
            for row, frozen in zip(rows, self._masked.frozen, strict=True):
                masking.zero_frozen_(row, frozen)
        return list(rows)

    def project_(
        self,
        vectors: Sequence[Tensor | None],
        which: Sequence[int] | None = None,
        *,
        minus: Sequence[Tensor] | None = None,
        norms: bool = True,
    ) -> Measure:
        """Project vectors in place.

        Args:
            vectors: flat tensors, one for each entry of ``which``; None counts as zero.
            which: indices of the shards concerned, by default all. Collective: every rank must make the call, in the
                same order, though its own list may be empty.
            minus: flat tensors like the vectors, where it is the vectors' differences from these that are to lose their
                components; what they lose is subtracted from the vectors.
            norms: whether the figures need the vectors' norms, which cost another pass over the vectors.
        """
        shards = range(len(self.shards)) if which is None else which
        measure = self.measure(vectors, which, minus=minus, norms=norms)
        weights = self.strength * projection.coefficients(self.factors, measure.inner)
        for index, vector in zip(shards, vectors, strict=True):
            group = self.group_of(index)
            if vector is not None and not self.leaves_alone(index) and self._is_projected(group):
                once, exact = minus is not None, self._exact[group]
                projection.subtract_(vector, self.rows[index], weights[group], once=once, exact=exact)
        return measure

    def measure(
        self,
        vectors: Sequence[Tensor | None],
        which: Sequence[int] | None = None,
        *,
        minus: Sequence[Tensor] | None = None,
        norms: bool = True,
    ) -> Measure:
        """The measurements of a projection, without projecting; the arguments are those of :meth:`project_`."""
        shards = range(len(self.shards)) if which is None else which
        sums = torch.zeros(len(self.names), self.num_rows + 1, dtype=torch.float64, device=self._device)
        offs: Sequence[Tensor | None] = [None] * len(vectors) if minus is None else minus
        for index, vector, off in zip(shards, vectors, offs, strict=True):
            if vector is None or self.leaves_alone(index):
                continue
            group = self.group_of(index)
            inner = projection.dots(self.rows[index], vector, minus=off, exact=self._exact[group])
            sums[group, :-1] += inner.to(self._device)
            if norms:
                sums[group, -1] += projection.squared_norm(vector, minus=off).to(self._device)
        sums = self._sum(sums)
        inner = sums[:, :-1]
        squared = sums[:, -1] if norms else torch.full_like(sums[:, -1], torch.nan)
        removed = (projection.coefficients(self.factors, inner) * inner).sum(-1)
        return Measure(inner, squared, removed)

    def total_norm(self, vectors: Sequence[Tensor]) -> float:
        """Euclidean norm of sharded vectors over all ranks. Collective."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for vector in vectors:
            total += projection.squared_norm(vector).to(self._device)
        return float(self._sum(total).sqrt())

    def num_elements(self) -> int:
        """How many elements of the basis this rank holds."""
        return sum(block.numel() for block in self.rows)

    def group_of(self, shard: int) -> int:
        """The index of the group that a shard's tensor belongs to."""
        return self._groups.of[self.shards[shard].tensor]

    def leaves_alone(self, shard: int) -> bool:
        """Whether a shard's tensor neither counts nor is changed."""
        return self.shards[shard].tensor in self._left_alone

    def _is_projected(self, group: int) -> bool:
        return projection.is_projectable(self.numels[group], self.num_rows)

    def _sum(self, values: Tensor) -> Tensor:
        if self._reduce_over_ranks and dist.get_world_size() > 1:
            dist.all_reduce(values)
        return values

    def _agree_on_rows(self, k: int) -> int:
        if not self._reduce_over_ranks:
            return k
        count = torch.tensor([k], device=self._device)
        dist.all_reduce(count, op=dist.ReduceOp.MAX)
        return int(count)
