"""What becomes of one layer: kept, merged or projected, and how the result is stored."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from pipelines.configs.merge_methods import Form, MergeMethod
from pipelines.merging import original
from pipelines.merging.criterion import Projection
from pipelines.merging.factors import Factors, low_rank, relative_error, truncate, weighted_sum
from pipelines.merging.seeding import generator_for

ChangeT = TypeVar("ChangeT")

Action = Literal["kept", "merged", "projected", "safe only", "copied"]


@dataclass(frozen=True)
class Rule:
    """How layers are merged.

    Attributes:
        repair: the method by which a layer is repaired.
        weights: the weights of the fine-tuned and the safe change.
        density: the share of elements that is kept, for methods that take it.
        seed: the seed for methods that are random, and for the compression of dense changes.
        original: compute as the published scripts do.
        sum_scaling: the scaling that the published arithmetic gives to added factors.
    """

    repair: MergeMethod
    weights: tuple[float, float]
    density: float
    seed: int
    original: bool = False
    sum_scaling: float = 1.0

    def is_below(self, rho: float, threshold: float) -> bool:
        """Whether a layer is repaired."""
        if self.original and self.repair.published is not None and self.repair.published.repairs_at_threshold:
            return rho <= threshold
        return rho < threshold

    def action(self, *, has_finetuned: bool, has_safe: bool, below: bool) -> Action:
        """The action that a layer with these changes calls for."""
        if not has_finetuned:
            return "safe only"
        if not below or (self.repair.takes_safe and not has_safe):
            return "kept"
        return self.repair.action

    @property
    def adds_factors(self) -> bool:
        """Whether factors are added instead of changes, as a published script does."""
        return self.original and self.repair.published is not None and self.repair.published.adds_factors

    def function(self, form: Form) -> Callable[..., Any] | None:
        """The method's arithmetic on factors, dense changes or weights; None where it has none."""
        if form not in self.repair.works_on:
            return None
        found: Callable[..., Any] = getattr(importlib.import_module(self.repair.module), f"on_{form}")
        return found


@dataclass(frozen=True)
class Change:
    """What a layer's change became.

    Attributes:
        action: what was done.
        value: low-rank factors, or a dense ``[out, in]`` float32 matrix.
        aim: the value that it should have, where the published arithmetic gives something else.
    """

    action: Action
    value: Factors | Tensor
    aim: Factors | None = None

    def rows(self, start: int, stop: int) -> Tensor:
        """``[stop - start, in]`` float32."""
        return self.value.rows(start, stop) if isinstance(self.value, Factors) else self.value[start:stop]


def merge_layer(
    rule: Rule,
    name: str,
    finetuned: Factors | None,
    safe: Factors | None,
    projection: Projection | None,
    *,
    below: bool,
) -> Change:
    """Merge one layer of two adapters.

    Args:
        rule: the method, its weights, and when a layer is merged.
        name: the name of the layer, which seeds what is random.
        finetuned: its fine-tuned change; None where there is none.
        safe: its safe change; None where there is none.
        projection: the projection ``C B`` of the fine-tuned ``B``, where the criterion was computed.
        below: whether it is to be repaired.

    Returns:
        The change, in float32 at least; a layer that is not repaired keeps its factors bit for bit.
    """
    present = [factors.B.dtype for factors in (finetuned, safe) if factors is not None]
    dtype = functools.reduce(torch.promote_types, present, torch.float32)
    action = rule.action(has_finetuned=finetuned is not None, has_safe=safe is not None, below=below)
    if finetuned is None:
        assert safe is not None
        return Change(action, weighted_sum([(rule.weights[1], safe)], safe.scaling, dtype))
    if rule.adds_factors and safe is not None:
        weights = rule.weights if below else (1.0, 0.0)
        terms = list(zip(weights, (finetuned, safe), strict=True))
        return Change(
            action, original.sum_of_factors(terms, rule.sum_scaling), weighted_sum(terms, finetuned.scaling, dtype)
        )
    if action == "kept":
        return Change(action, finetuned)
    terms = weighted(rule, finetuned, safe)
    if on_factors := rule.function("factors"):
        merged = on_factors(terms, finetuned.scaling, dtype, **_arguments(rule, projection))
        if merged is not None:
            return Change(action, merged)
    return Change(action, merge_dense(rule, name, [(weight, term.dense()) for weight, term in terms]))


def weighted(rule: Rule, finetuned: ChangeT, safe: ChangeT | None) -> list[tuple[float, ChangeT]]:
    """The changes that a method takes, with their weights."""
    if not rule.repair.takes_safe:
        return [(1.0, finetuned)]
    assert safe is not None
    return list(zip(rule.weights, (finetuned, safe), strict=True))


def merge_dense(
    rule: Rule, name: str, terms: Sequence[tuple[float, Tensor]], direction: Sequence[Tensor] = ()
) -> Tensor:
    """Merge dense changes by the rule's method.

    Args:
        rule: the method, its weights, and when a layer is merged.
        name: the name of the tensor, which seeds what is random.
        terms: weights and float32 changes of one shape, which are overwritten.
        direction: float32 rows of V in blocks, for methods that take it.
    """
    on_dense = rule.function("dense")
    assert on_dense is not None
    arguments = _arguments(rule, direction)
    if rule.repair.is_random:
        arguments["generator"] = generator_for(rule.seed, name)
    merged: Tensor = on_dense(terms, **arguments)
    return merged


def _arguments(rule: Rule, direction: Projection | Sequence[Tensor] | None) -> dict[str, Any]:
    """What the method takes beside the changes."""
    arguments: dict[str, Any] = {}
    if rule.repair.takes_density:
        arguments["density"] = rule.density
    if rule.repair.takes_direction:
        assert direction is not None
        arguments["direction"] = direction
    return arguments


def as_factors(
    change: Change,
    rule: Rule,
    name: str,
    *,
    scaling: float,
    max_rank: int | None,
    default_rank: int,
    dtype: torch.dtype,
) -> tuple[Factors, float]:
    """A change as an adapter stores it, and how far that is from the exact one.

    Args:
        change: what became of the layer.
        rule: the rule whose seed a compression of a dense change uses.
        name: the name of the layer.
        scaling: the scaling that a dense change is stored with.
        max_rank: highest rank; None for the exact one.
        default_rank: highest rank of dense changes where there is no ``max_rank``.
        dtype: the dtype of the stored factors.

    Returns:
        The factors, and ``|stored - exact| / |exact|`` with the rounding to ``dtype`` included.
    """
    value = change.value
    if isinstance(value, Factors):
        stored = truncate(value, max_rank or value.rank, dtype)
        return stored, relative_error(stored, change.aim or value)
    generator = generator_for(rule.seed, f"{name} low rank")
    stored = low_rank(value, max_rank or default_rank, scaling, dtype, generator)
    return stored, _dense_error(stored, value)


def _dense_error(stored: Factors, exact: Tensor) -> float:
    squared = 0.0
    for start in range(0, exact.shape[0], 256):
        part = exact[start : start + 256] - stored.rows(start, start + 256)
        squared += float((part.double() ** 2).sum())
    total = float(torch.linalg.vector_norm(exact, dtype=torch.float64))
    return squared**0.5 / total if total > 0 else 0.0
