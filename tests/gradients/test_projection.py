"""The projection's mathematics against float64 and against its own properties, over random shapes and hard rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipelines.gradients import projection


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def exact(vector: Tensor, rows: Tensor, rtol: float = 1e-6) -> Tensor:
    """The projection in float64 by singular values of unit rows: nothing in common with the Gram route."""
    B = rows.double()
    lengths = B.norm(dim=1, keepdim=True)
    B = torch.where(lengths > 0, B / lengths.clamp_min(1e-300), torch.zeros_like(B))
    _, values, basis = torch.linalg.svd(B, full_matrices=False)
    kept = basis[values > rtol * values.max().clamp_min(1e-300)]
    return vector.double() - kept.T @ (kept @ vector.double())


def residual(vector: Tensor, rows: Tensor, reference: Tensor) -> float:
    """Largest |<b, v>| / (|b| |reference|), in float64."""
    lengths = rows.double().norm(dim=1) * reference.double().norm()
    inner = (rows.double() @ vector.double()).abs()
    return float(torch.where(lengths > 0, inner / lengths.clamp_min(1e-300), torch.zeros_like(inner)).max())


def hard_rows(n: int, k: int, kind: str, closeness: float, generator: torch.Generator) -> Tensor:
    rows = torch.randn(k, n, generator=generator)
    if kind == "parallel":
        rows[1:] = rows[0] + closeness * rows[1:]
    elif kind == "duplicate":
        rows[1:] = rows[0]
    elif kind == "zero":
        rows[-1] = 0
    elif kind == "scales":
        rows *= torch.logspace(-12, 12, k)[:, None]
    return rows


@settings(max_examples=120, deadline=None)
@given(
    n=st.one_of(st.integers(9, 300), st.integers(300, 200_000)),
    k=st.integers(1, 6),
    kind=st.sampled_from(["random", "parallel", "duplicate", "zero", "scales"]),
    closeness=st.sampled_from([1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8]),
    stored=st.sampled_from(["fp32", "bf16"]),
    along=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 2**31),
)
def test_nothing_of_the_rows_is_left(
    n: int, k: int, kind: str, closeness: float, stored: str, along: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = hard_rows(n, min(k, n - 1), kind, closeness, generator).to(DTYPES[stored])
    vector = torch.randn(n, generator=generator)
    # Vectors that lie mostly along a row, or along the small difference of two, are the hard ones.
    direction = rows[0].float() - (rows[-1].float() if kind == "parallel" else 0)
    if direction.norm() > 0:
        vector += along * direction / direction.norm() * n**0.5
    result = projection.project_out(vector, rows)
    assert residual(result, rows, vector) <= 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_left_of_a_vector_along_a_row(seed: int) -> None:
    """Float32 sums left up to 1.9e-6 here: the products of a row with itself are positive and add up."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(4, 60_114, generator=generator)
    vector = torch.randn(60_114, generator=generator) + 30 * rows[0]
    assert residual(projection.project_out(vector, rows), rows, vector) <= 1e-6


@pytest.mark.parametrize("stored", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["random", "parallel", "duplicate", "zero"])
def test_nothing_is_left_at_ten_million_elements(stored: str, kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    n = 10_000_019  # no multiple of the chunk
    rows = hard_rows(n, 2, kind, 1e-3, generator).to(DTYPES[stored])
    vector = torch.randn(n, generator=generator) + 2 * rows[0].float()
    kept = vector.clone()
    result = projection.project_out(vector, rows)
    assert residual(result, rows, vector) <= 1e-6
    assert torch.equal(vector, kept)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(9, 5000), k=st.integers(1, 5), stored=st.sampled_from(["fp32", "bf16"]), seed=st.integers(0, 2**31)
)
def test_equals_the_float64_formula(n: int, k: int, stored: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(min(k, n - 1), n, generator=generator).to(DTYPES[stored])
    vector = torch.randn(n, generator=generator)
    result = projection.project_out(vector, rows)
    assert float((result.double() - exact(vector, rows)).norm() / vector.norm()) <= 1e-6


@settings(max_examples=40, deadline=None)
@given(n=st.integers(20, 5000), k=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_does_not_depend_on_how_the_span_is_described(n: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(k, n, generator=generator)
    vector = torch.randn(n, generator=generator)
    mixed = (torch.randn(k, k, generator=generator) + 3 * torch.eye(k)) @ rows
    first, second = projection.project_out(vector, rows), projection.project_out(vector, mixed)
    assert float((first - second).norm() / vector.norm()) <= 1e-5
    again = projection.project_out(first, rows)
    assert float((again - first).norm() / vector.norm()) <= 1e-6


def test_strength_scales_what_is_removed() -> None:
    rows, vector = torch.randn(2, 400), torch.randn(400)
    whole = vector - projection.project_out(vector, rows)
    half = vector - projection.project_out(vector, rows, strength=0.5)
    torch.testing.assert_close(half, 0.5 * whole)


def test_half_precision_vectors_are_rounded_once() -> None:
    rows, vector = torch.randn(2, 70_000), torch.randn(70_000).bfloat16()
    result = projection.project_out(vector, rows)
    assert result.dtype == torch.bfloat16
    # Half a step of bfloat16, and no more: the float64 result, rounded. (Its residual is that of the rounding.)
    wanted = exact(vector, rows)
    assert bool(((result.double() - wanted).abs() <= 2**-8 * wanted.abs() + 1e-6).all())


def test_inverse_factor_is_the_pseudo_inverse() -> None:
    rows = torch.randn(5, 4, 30, dtype=torch.float64)
    rows[1, 2] = rows[1, 0]
    rows[2] = 0
    grams = rows @ rows.transpose(-1, -2)
    factors = projection.inverse_factor(grams)
    torch.testing.assert_close(factors @ factors.transpose(-1, -2), torch.linalg.pinv(grams, rtol=1e-9, hermitian=True))
    assert projection.ranks(factors).tolist() == [4, 3, 0, 4, 4]


def test_small_tensors_are_left_alone() -> None:
    assert not projection.is_projectable(8, 1)
    assert not projection.is_projectable(12, 12)
    assert projection.is_projectable(9, 2)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 700),
    k=st.integers(1, 4),
    stored=st.sampled_from(["float32", "bfloat16"]),
    exact=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_a_difference_is_projected_without_being_held(n: int, k: int, stored: str, exact: bool, seed: int) -> None:
    torch.manual_seed(seed)
    before, rows = torch.randn(n), torch.randn(k, n).to(getattr(torch, stored))
    after = before + 1e-4 * torch.randn(n)
    with pytest.MonkeyPatch.context() as patch:
        # Several chunks of whole runs, and a rest.
        patch.setattr(projection, "CHUNK", 32)
        inner = projection.dots(rows, after, minus=before, exact=exact)
        change = after.double() - before.double()
        wide = rows.double()
        bound = 1e-6 * wide.norm(dim=1) * change.norm()
        assert bool(((inner - wide @ change).abs() <= bound + 1e-30).all())
        weights = 1e-4 * torch.randn(k, dtype=torch.float64)
        result = after.clone()
        projection.subtract_(result, rows, weights, once=True, exact=exact)
    wanted = after.double() - wide.T @ weights
    # Rounded once: to the nearest number there is, but for what rounding the subtracted part adds.
    spacing = torch.nextafter(wanted.float().abs(), torch.tensor(torch.inf)).double() - wanted.float().abs().double()
    rounding = 1e-6 * (wide.abs().T @ weights.abs())
    assert bool(((result.double() - wanted).abs() <= 0.5 * spacing + rounding).all())
    torch.testing.assert_close(projection.squared_norm(after, minus=before), change.square().sum(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_products_are_as_accurate_with_one_thread_as_with_several(threads: int, seed: int) -> None:
    torch.manual_seed(seed)
    rows, vector = torch.randn(3, 300_001), torch.randn(300_001)
    # Numbers of one sign, whose sum grows: the worst for sums in float32.
    rows[0], vector[:] = 0.1, vector.abs()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = projection.dots(rows, vector)
    finally:
        torch.set_num_threads(before)
    wanted = rows.double() @ vector.double()
    lengths = rows.double().norm(dim=1) * vector.double().norm()
    assert float(((found - wanted).abs() / lengths).max()) <= 1e-7
