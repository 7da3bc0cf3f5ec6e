"""The choice of weights against a stable sort of everything in memory."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_registry.core.errors import NumericsError
from pipelines.masks.parameters import Parameter
from pipelines.masks.selecting import QUANTILES, Choice, Selection
from pipelines.weights.read_ahead import Read

KINDS = ("normal", "few values", "zeros", "denormal", "bf16", "equal", "wide")


class Held:
    """Scores in memory, given out in blocks of a size."""

    def __init__(self, values: dict[str, np.ndarray[Any, Any]], block: int) -> None:
        self.values, self.block = values, block

    def reads(self, parameter: Parameter) -> Iterator[Read]:
        flat = torch.from_numpy(self.values[parameter.name])
        for start in range(0, max(1, len(flat)), self.block):
            yield partial(flat[start : start + self.block].clone)


def scores(rng: np.random.Generator, kind: str, numel: int) -> np.ndarray[Any, Any]:
    values = np.abs(rng.standard_normal(numel)).astype(np.float32)
    if kind == "few values":
        values = rng.integers(0, 4, numel).astype(np.float32)
    if kind == "zeros":
        values[rng.random(numel) < 0.9] = 0
    if kind == "denormal":
        values = (rng.integers(0, 9, numel) * np.float32(1e-45)).astype(np.float32)
    if kind == "bf16":
        values = torch.from_numpy(values).bfloat16().float().numpy()
    if kind == "equal":
        values[:] = 0.5
    if kind == "wide":
        values = np.exp(rng.uniform(-80, 80, numel)).astype(np.float32)
    return values


def sorted_choice(parts: list[np.ndarray[Any, Any]], choice: Choice) -> list[np.ndarray[Any, Any]]:
    """By a stable sort of all scores: the definition."""
    if choice.scope == "tensor":
        whole = Choice(choice.ratio, "global", choice.skip_top, choice.order)
        chosen = [sorted_choice([part], whole)[0] for part in parts]
        for part, found in zip(parts, chosen, strict=True):
            first = int(Fraction(str(choice.skip_top)) * len(part))
            best = np.argsort(part if choice.least else -part, kind="stable")[first : first + 1]
            if not found.any() and int(Fraction(str(choice.ratio)) * len(part)) <= first:
                found[best] = choice.least or part[best] > 0
        return chosen
    flat = np.concatenate(parts)
    order = np.argsort(flat if choice.least else -flat, kind="stable")
    first, last = (int(Fraction(str(share)) * len(flat)) for share in (choice.skip_top, choice.ratio))
    found = np.zeros(len(flat), dtype=bool)
    found[order[first:last]] = True
    if not choice.least:
        found &= flat > 0
    return np.split(found, np.cumsum([len(part) for part in parts])[:-1])


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 70)), min_size=1, max_size=5),
    st.sampled_from([1, 3, 8, 1000]),
    st.sampled_from([0.01, 0.05, 0.29, 0.5, 1.0]),
    st.sampled_from([0.0, 0.009, 0.04]),
    st.sampled_from(["global", "tensor"]),
    st.sampled_from(["most", "least"]),
    st.integers(1, 3),
)
def test_the_choice_is_that_of_a_stable_sort(
    seed: int,
    tensors: list[tuple[str, int]],
    block: int,
    ratio: float,
    skip: float,
    scope: Any,
    order: Any,
    workers: int,
) -> None:
    rng = np.random.default_rng(seed)
    values = {f"layers.{i}": scores(rng, kind, numel) for i, (kind, numel) in enumerate(tensors)}
    choice = Choice(ratio, scope, skip if skip < ratio else 0.0, order)
    parameters = [Parameter(name, (len(value),)) for name, value in values.items()]
    found = Selection(Held(values, block), parameters, choice, workers=workers)
    chosen = [np.concatenate([np.zeros(0, bool), *found.flags(parameter)]) for parameter in parameters]
    wanted = sorted_choice(list(values.values()), choice)
    for name, mine, theirs in zip(values, chosen, wanted, strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    assert found.num_chosen == sum(int(part.sum()) for part in wanted) <= found.num_wanted
    for name, value in values.items():
        known = found.found[name]
        assert known.largest == (value.max() if len(value) else 0)
        assert known.zeros == int((value == 0).sum())
        for share, quantile in zip(QUANTILES, known.quantiles, strict=True):
            if len(value):
                true = np.sort(value)[max(1, int(share * len(value) + 0.5)) - 1]
                assert quantile <= true <= quantile * (1 + 2.0**-7) + 1e-40


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused_by_its_tensor(bad: float) -> None:
    values = {"a": np.ones(5, np.float32), "layers.1.b": np.array([1, bad, 0], np.float32)}
    parameters = [Parameter(name, (len(value),)) for name, value in values.items()]
    with pytest.raises(NumericsError, match=r"score of layers\.1\.b is not finite"):
        Selection(Held(values, 2), parameters, Choice(0.5))


def published_choice(parts: list[torch.Tensor], ratio: float) -> float:
    """The rule of the published code, written anew: the share that it really selects."""
    kept = [part.flatten().topk(min(part.numel(), int(2 * ratio * part.numel()))).values.bfloat16() for part in parts]
    wanted = int(ratio * sum(part.numel() for part in parts))
    threshold = torch.cat(kept).float().sort(descending=True).values[wanted - 1]
    return float(sum((part >= threshold).sum() for part in parts)) / sum(part.numel() for part in parts)


def test_an_exact_choice_keeps_the_ratio_where_the_published_rule_does_not() -> None:
    rng = np.random.default_rng(0)
    values = {f"t{i}": np.abs(rng.standard_normal(4000)).astype(np.float32) * 10.0**i for i in range(5)}
    parameters = [Parameter(name, (4000,)) for name in values]
    found = Selection(Held(values, 512), parameters, Choice(0.05))
    assert found.num_chosen == found.num_wanted == 1000
    assert published_choice([torch.from_numpy(value) for value in values.values()], 0.05) > 0.07
