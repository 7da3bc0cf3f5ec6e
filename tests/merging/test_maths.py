"""The mathematics of merging against float64 computations that form every matrix."""

import math

import pytest
import torch

from pipelines.configs.merge_methods import METHODS
from pipelines.merging import original
from pipelines.merging.criterion import cosine, project, project_dense, threshold_for
from pipelines.merging.factors import Factors, low_rank, norm, relative_error, truncate, weighted_sum
from pipelines.merging.methods import dare_linear, ties
from pipelines.merging.rule import Rule, merge_layer
from pipelines.merging.seeding import generator_for
from tests.reference import merge_plain as plain


def random_factors(seed, out=40, width=24, rank=4, scaling=2.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(rank, width, generator=generator).to(dtype)
    B = torch.randn(out, rank, generator=generator).to(dtype)
    return Factors(A, B, scaling)


def of(factors):
    return plain.delta(factors.A, factors.B, factors.scaling)


def blocks(V, size):
    return [V[start : start + size].contiguous() for start in range(0, V.shape[0], size)]


# --- The criterion -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("out", "width", "rank"), [(40, 24, 4), (16, 64, 1), (64, 64, 16), (128, 32, 32), (7, 5, 3)])
def test_rho_is_the_cosine_of_the_matrices_themselves(out, width, rank, dtype):
    torch.manual_seed(out * width + rank)
    aligned, unaligned = torch.randn(out, width).to(dtype), torch.randn(out, width).to(dtype)
    D = random_factors(1, out, width, rank, dtype=dtype)
    expected = plain.rho(aligned, unaligned, of(D))
    V = aligned.float() - unaligned.float()
    found = project(blocks(V, 5), D.B)
    assert cosine(D, found.CB) == pytest.approx(expected, rel=1e-5)
    assert found.v_norm == pytest.approx(float((aligned.double() - unaligned.double()).norm()), rel=1e-5)
    C = plain.projector(aligned, unaligned)
    torch.testing.assert_close(found.CB.double(), C @ D.B.double(), rtol=1e-4, atol=1e-5 * float(C.norm()))
    stored = project(blocks(V.T.contiguous(), 5), D.B, transposed=True)
    assert cosine(D, stored.CB) == pytest.approx(expected, rel=1e-5)


def test_rho_does_not_depend_on_scaling_and_stays_a_cosine():
    torch.manual_seed(0)
    V = torch.randn(20, 20)
    D = random_factors(3, 20, 20)
    first, second = (cosine(Factors(D.A, D.B, scale), project([V], D.B).CB) for scale in (1.0, 37.0))
    assert first == pytest.approx(second)
    assert 0 < first < 1
    orthogonal = torch.linalg.qr(V)[0]
    assert cosine(D, project([orthogonal], D.B).CB) == pytest.approx(1.0, abs=1e-6)


def test_nothing_aligned_or_nothing_tuned_counts_as_zero():
    D = random_factors(3, 20, 20)
    assert cosine(D, project([torch.zeros(20, 20)], D.B).CB) == 0.0
    still = Factors(D.A, torch.zeros_like(D.B), 1.0)
    assert cosine(still, project([torch.randn(20, 20)], still.B).CB) == 0.0


def test_dense_changes_have_the_same_criterion():
    torch.manual_seed(2)
    aligned, unaligned, D = torch.randn(30, 700), torch.randn(30, 700), torch.randn(30, 700)
    rho, v_norm = project_dense(blocks(aligned - unaligned, 7), D)
    assert rho == pytest.approx(plain.rho(aligned, unaligned, D.double()), rel=1e-5)
    assert v_norm == pytest.approx(float((aligned - unaligned).norm()), rel=1e-5)


def test_threshold_for_a_share_of_the_layers():
    rhos = [0.5, 0.1, 0.4, 0.2, 0.3]
    for count in range(6):
        threshold = threshold_for(rhos, count / 5)
        assert sum(rho < threshold for rho in rhos) == count
    assert threshold_for([1.0, 1.0], 1.0) > 1.0


# --- Sums --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [(4, 4), (2, 9), (16, 1)])
def test_concatenated_factors_are_the_weighted_sum(ranks):
    left, right = random_factors(1, rank=ranks[0], scaling=0.5), random_factors(2, rank=ranks[1], scaling=3.0)
    merged = weighted_sum([(0.8, left), (0.2, right)], left.scaling, torch.float32)
    assert merged.rank == sum(ranks)
    torch.testing.assert_close(of(merged), 0.8 * of(left) + 0.2 * of(right), rtol=1e-5, atol=1e-5)
    assert norm(merged) == pytest.approx(float((0.8 * of(left) + 0.2 * of(right)).norm()), rel=1e-6)


def test_sums_that_change_nothing_return_the_very_factors():
    left, right = random_factors(1), random_factors(2)
    for terms in ([(1.0, left), (0.0, right)], [(0.8, left), (0.2, random_factors(1))]):
        merged = weighted_sum(terms, left.scaling, torch.float32)
        assert torch.equal(merged.A, left.A)
        assert torch.equal(merged.B, left.B)
    with pytest.raises(ValueError, match="weight"):
        weighted_sum([(0.0, left)], 1.0, torch.float32)


def test_truncation_is_the_best_of_its_rank_and_its_error_is_told():
    merged = weighted_sum([(0.8, random_factors(1, rank=6)), (0.2, random_factors(2, rank=6))], 2.0, torch.float32)
    best = plain.best_of_rank(of(merged), 5)
    cut = truncate(merged, 5, torch.float32)
    assert cut.rank == 5
    torch.testing.assert_close(of(cut), best, rtol=1e-4, atol=1e-4)
    expected = float((best - of(merged)).norm() / of(merged).norm())
    assert relative_error(cut, merged) == pytest.approx(expected, rel=1e-4)
    assert truncate(merged, 99, torch.float32).rank == 12


def test_randomised_compression_is_near_the_best():
    torch.manual_seed(0)
    D = of(random_factors(1, rank=5)).float() + 0.01 * torch.randn(40, 24)
    found = low_rank(D, 5, 0.5, torch.float32, generator_for(0, "x"))
    best = plain.best_of_rank(D, 5)
    assert float((of(found) - D).norm()) <= 1.001 * float((best - D).norm())
    assert found.scaling == 0.5


# --- Element by element ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.8, 0.2), (1.0, 0.0)])
def test_ties_is_the_plain_rule(density, weights):
    torch.manual_seed(1)
    changes = [(weight, torch.randn(6, 7)) for weight in weights]
    expected = plain.ties([(weight, change.clone()) for weight, change in changes], density)
    found = ties.on_dense([(weight, change.clone()) for weight, change in changes], density)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_dare_keeps_the_mean_and_repeats_by_name():
    torch.manual_seed(1)
    D, S = torch.randn(400, 400), torch.randn(400, 400)

    def draw(name, seed=0, density=0.25):
        terms = [(0.8, D.clone()), (0.2, S.clone())]
        return dare_linear.on_dense(terms, density, generator_for(seed, name))

    found = draw("a")
    assert torch.equal(found, draw("a"))
    assert not torch.equal(found, draw("b"))
    assert not torch.equal(found, draw("a", seed=1))
    # Values that survive are scaled by 1 / density; with two changes a place has one of four values.
    values = torch.stack([torch.zeros_like(D), 3.2 * D, 0.8 * S, 3.2 * D + 0.8 * S])
    assert ((found - values).abs().amin(0) < 1e-4).all()
    assert float((found != 0).float().mean()) == pytest.approx(1 - 0.75**2, abs=0.01)
    assert float((found * D).sum()) == pytest.approx(float(((0.8 * D + 0.2 * S) * D).sum()), rel=0.02)
    torch.testing.assert_close(draw("a", density=1.0), 0.8 * D + 0.2 * S)


# --- The published arithmetic --------------------------------------------------------------------------------------


def test_factors_are_added_as_peft_adds_them(tmp_path):
    """Against PEFT itself, bit for bit, and that this is far from the sum of the changes."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"]))
    model.add_adapter("safe", LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter)
    model.add_weighted_adapter(["default", "safe"], [0.8, 0.2], "merged", combination_type="linear")
    layer = model.base_model.model.model.layers[0].self_attn.q_proj

    def factors(name):
        return Factors(layer.lora_A[name].weight.data, layer.lora_B[name].weight.data, layer.scaling[name])

    left, right, merged = factors("default"), factors("safe"), factors("merged")
    found = original.sum_of_factors([(0.8, left), (0.2, right)])
    assert torch.equal(found.A, merged.A)
    assert torch.equal(found.B, merged.B)
    assert merged.scaling == 1.0
    exact = weighted_sum([(0.8, left), (0.2, right)], left.scaling, torch.float32)
    assert relative_error(found, exact) > 0.1


def test_the_published_cosine_is_ours_rounded_to_five_decimals():
    torch.manual_seed(0)
    V, D = torch.randn(48, 48), random_factors(1, 48, 48)
    C = original.projector(V)
    found = original.rounded_cosine(C, D)
    assert found == round(found, 5)
    assert found == pytest.approx(cosine(D, project([V], D.B).CB), abs=6e-6)
    assert original.rounded_cosine(original.projector(torch.zeros(48, 48)), D) == 0.0


# --- Decisions ---------------------------------------------------------------------------------------------------


def rule(method="linear", weights=(0.8, 0.2), **options):
    return Rule(METHODS[method], weights, options.pop("density", 0.5), options.pop("seed", 0), **options)


def test_below_is_strict_but_for_the_published_safelora():
    assert not rule().is_below(0.35, 0.35)
    assert rule().is_below(0.34, 0.35)
    assert not rule("safelora").is_below(0.35, 0.35)
    assert rule("safelora", original=True).is_below(0.35, 0.35)
    assert not rule(original=True).is_below(0.35, 0.35)


def test_a_layer_is_merged_projected_or_kept():
    D, S = random_factors(1), random_factors(2)
    V = torch.randn(40, 24)
    found = project([V], D.B)
    kept = merge_layer(rule(), "x", D, S, found, below=False)
    assert kept.action == "kept"
    assert kept.value is D
    merged = merge_layer(rule(), "x", D, S, found, below=True)
    torch.testing.assert_close(of(merged.value), 0.8 * of(D) + 0.2 * of(S), rtol=1e-5, atol=1e-5)
    projected = merge_layer(rule("safelora"), "x", D, None, found, below=True)
    C = plain.projector(V, torch.zeros_like(V))
    torch.testing.assert_close(of(projected.value), C @ of(D), rtol=1e-4, atol=1e-3)
    only = merge_layer(rule(), "x", None, S, None, below=True)
    torch.testing.assert_close(of(only.value), 0.2 * of(S), rtol=1e-5, atol=1e-5)
    assert math.isclose(norm(only.value), 0.2 * norm(S), rel_tol=1e-6)
