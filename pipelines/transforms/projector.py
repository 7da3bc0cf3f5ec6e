"""Sharded projection: each rank touches only its own shards; one reduction of T x (k + 1) numbers makes it whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from data_registry.core.errors import NumericsError
from pipelines.engine.shards.access import Shard, ShardAccess
from pipelines.gradients import projection


@dataclass(frozen=True)
class Measure:
    """What one projection found, summed over ranks. Tensors are float64 on the compute device.

    Attributes:
        inner: ``[T, k]`` inner products of the rows with the vector before projection.
        squared: ``[T]`` the vector's squared norms before projection; NaN where they were not asked for.
        removed: ``[T]`` squared norms of its components in the rows' spans.
    """

    inner: Tensor
    squared: Tensor
    removed: Tensor


class Projector:
    """Projects sharded vectors (gradients or updates) off the rows of a basis, tensor by tensor.

    Rows lie where the vectors lie: on the host, if the optimizer is offloaded. What is summed over ranks lies on
    the compute device, where the ranks can reduce it.

    Args:
        access: this rank's shards.
        rows: one ``[k, numel]`` tensor for each shard, float32 or bfloat16, on ``access.rows_device()``.
        strength: share of the component that is removed.

    Raises:
        NumericsError: a row is not finite.
    """

    def __init__(self, access: ShardAccess, rows: Sequence[Tensor], strength: float = 1.0) -> None:
        self.shards: list[Shard] = list(access.shards)
        self.names = access.names
        self.numels = access.numels
        self._reduce_over_ranks = not access.replicated
        self._device = access.device()
        self.strength = strength
        self.replace(rows)

    @property
    def num_rows(self) -> int:
        """Number of reference objectives k."""
        return self.grams.shape[-1]

    def replace(self, rows: Sequence[Tensor]) -> None:
        """Take new rows of the same shapes, after a refresh."""
        self.rows = list(rows)
        k = self.rows[0].shape[0] if self.rows else 0
        # A rank may hold no shard at all; it still takes part in every reduction.
        k = self._agree_on_rows(k)
        grams = torch.zeros(len(self.names), k, k, dtype=torch.float64, device=self._device)
        for shard, block in zip(self.shards, self.rows, strict=True):
            grams[shard.tensor] += projection.gram(block).to(self._device)
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

    def project_(
        self, vectors: Sequence[Tensor | None], which: Sequence[int] | None = None, *, norms: bool = True
    ) -> Measure:
        """Project vectors in place.

        Args:
            vectors: flat tensors, one for each entry of ``which``; None counts as zero.
            which: indices of the shards concerned, all by default. Collective: every rank must call, in the same
                order, though its own list may be empty.
            norms: whether the figures need the vectors' norms, which cost another pass over the vectors.
        """
        shards = range(len(self.shards)) if which is None else which
        measure = self.measure(vectors, which, norms=norms)
        weights = self.strength * projection.coefficients(self.factors, measure.inner)
        for index, vector in zip(shards, vectors, strict=True):
            tensor = self.shards[index].tensor
            if vector is not None and self._is_projected(tensor):
                projection.subtract_(vector, self.rows[index], weights[tensor], exact=self._exact[tensor])
        return measure

    def measure(
        self, vectors: Sequence[Tensor | None], which: Sequence[int] | None = None, *, norms: bool = True
    ) -> Measure:
        """The figures of a projection without doing it; arguments as in :meth:`project_`."""
        shards = range(len(self.shards)) if which is None else which
        sums = torch.zeros(len(self.names), self.num_rows + 1, dtype=torch.float64, device=self._device)
        for index, vector in zip(shards, vectors, strict=True):
            if vector is None:
                continue
            tensor = self.shards[index].tensor
            inner = projection.dots(self.rows[index], vector, exact=self._exact[tensor])
            sums[tensor, :-1] += inner.to(self._device)
            if norms:
                sums[tensor, -1] += projection.squared_norm(vector).to(self._device)
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
        """Numbers of the basis that this rank holds."""
        return sum(block.numel() for block in self.rows)

    def _is_projected(self, tensor: int) -> bool:
        return projection.is_projectable(self.numels[tensor], self.num_rows)

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
