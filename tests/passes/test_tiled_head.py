"""Losses through the head tile by tile: values and gradients against float64, and every model's own logits."""

from __future__ import annotations

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.passes import tiled_head
from pipelines.passes.distributions import TopLogProbs, forward_kl, top_log_probs
from pipelines.passes.states import at_places, padded, pass_for_states
from pipelines.passes.tiled_head import CrossEntropy, Divergence, Head, LogitRule, log_probs_at_places, sum_at_places
from tests.passes.test_distributions import plain_kl

shapes = st.tuples(
    st.integers(0, 7), st.integers(1, 6), st.integers(2, 30), st.integers(1, 40), st.booleans(), st.booleans(),
    st.integers(0, 10**6),
)  # fmt: skip


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(shape, monkeypatch=None):
    places, hidden, vocabulary, k, has_bias, capped, seed = shape
    states, weight = drawn(seed, places, hidden).requires_grad_(), drawn(seed + 1, vocabulary, hidden).requires_grad_()
    bias = drawn(seed + 2, vocabulary).requires_grad_() if has_bias else None
    head = Head(weight, bias, LogitRule(0.7, 2.0) if capped else LogitRule())
    start = top_log_probs(3 * drawn(seed + 3, places, vocabulary), k)
    return head, states, TopLogProbs(start.ids, start.log_probs.double(), start.rest.double())


def total(states, head, loss) -> torch.Tensor:
    found, values = sum_at_places(states, head, loss)
    assert len(values) == len(states)
    torch.testing.assert_close(found, values.sum())
    return found


def plain_logits(head: Head, states: torch.Tensor) -> torch.Tensor:
    logits = head.rule.scale * torch.nn.functional.linear(states, head.weight, head.bias)
    return logits if head.rule.cap is None else head.rule.cap * torch.tanh(logits / head.rule.cap)


def gradients(of: torch.Tensor, head: Head, states: torch.Tensor) -> list[torch.Tensor]:
    return torch.autograd.grad(0.3 * of, [part for part in (states, head.weight, head.bias) if part is not None])


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(tiled_head, "_FEWEST", 1)
    monkeypatch.setattr(tiled_head, "_MOST", 3)


@settings(max_examples=60, deadline=None)
@given(shapes)
def test_divergence_in_tiles_is_the_formula_with_its_gradients(shape):
    head, states, start = made(shape)
    found = total(states, head, Divergence(start))
    logits = plain_logits(head, states)
    order = start.ids
    log_probs = logits.log_softmax(-1)
    p0 = start.log_probs.exp()
    wanted = (p0 * (start.log_probs - log_probs.gather(-1, order))).sum()
    if order.shape[-1] < logits.shape[-1]:
        rest = (1 - torch.zeros_like(logits).scatter(-1, order, 1.0)) * log_probs.exp()
        wanted = wanted + (start.rest.exp() * (start.rest - rest.sum(-1).log())).sum()
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(gradients(found, head, states), gradients(wanted, head, states), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_cross_entropy_in_tiles_is_that_of_torch_with_its_gradients(shape):
    head, states, _ = made(shape)
    targets = torch.arange(len(states)) % len(head.weight)
    found = total(states, head, CrossEntropy(targets))
    wanted = torch.nn.functional.cross_entropy(plain_logits(head, states), targets, reduction="sum")
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(gradients(found, head, states), gradients(wanted, head, states), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("gradient", [False, True])
def test_logits_beyond_what_exponentials_can_hold(gradient):
    logits = torch.tensor([[4e3, -4e3, 0.0], [-4e3, -4e3, -4e3 - 1], [1.0, -torch.inf, 2.0], [-torch.inf, -90.0, -100]])
    targets = torch.tensor([1, 2, 0, 1])
    exact = logits.double().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(exact, targets, reduction="none")
    wanted.sum().backward()
    found = CrossEntropy(targets).at_(logits, 0, gradient)
    torch.testing.assert_close(found, wanted.detach().float(), rtol=1e-6, atol=1e-7)
    if gradient:
        torch.testing.assert_close(logits, exact.grad.float(), rtol=1e-6, atol=1e-7)


def test_a_token_that_is_nearly_certain_keeps_its_digits():
    """One minus its probability, which is its gradient, is far less than float32 tells from one."""
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(8)
    logits[torch.arange(8), targets] = torch.tensor([8.0, 12, 16, 20, 24, 28, 32, 40])
    exact = logits.double().requires_grad_()
    own = exact.gather(1, targets[:, None])[:, 0]
    others = exact.scatter(1, targets[:, None], -torch.inf).logsumexp(1)
    wanted = (others - own).exp().log1p()
    wanted.sum().backward()
    found = CrossEntropy(targets).at_(logits, 0, True)
    torch.testing.assert_close(found, wanted.detach().float(), rtol=5e-6, atol=0)
    torch.testing.assert_close(logits, exact.grad.float(), rtol=5e-6, atol=0)


@pytest.mark.parametrize("capped", [False, True])
def test_gradients_by_finite_differences(capped):
    head, states, start = made((4, 3, 11, 4, True, capped, 5))
    gradient, *_ = gradients(total(states, head, Divergence(start)), head, states)
    step = 1e-5
    for place in range(4):
        for column in range(3):
            moved = torch.zeros_like(states)
            moved[place, column] = step
            up, down = (
                plain_kl(start_logits(start, 11), plain_logits(head, states.detach() + sign * moved), 4).sum()
                for sign in (1, -1)
            )
            assert float(gradient[place, column]) == pytest.approx(
                0.3 * float((up - down).detach()) / (2 * step), abs=1e-6
            )


def start_logits(start: TopLogProbs, vocabulary: int) -> torch.Tensor:
    """Logits of which the kept tokens and the bucket are those of ``start``."""
    others = (start.rest - torch.log(torch.tensor(vocabulary - start.ids.shape[-1], dtype=torch.float64)))[:, None]
    return others.expand(-1, vocabulary).scatter(-1, start.ids, start.log_probs)


def test_without_gradients_nothing_is_kept_and_the_value_is_the_same():
    head, states, start = made((6, 3, 12, 5, True, False, 9))
    with torch.no_grad():
        value = total(states, head, Divergence(start))
    assert not value.requires_grad
    assert float(value) == float(total(states, head, Divergence(start)).detach())
    exact = forward_kl(TopLogProbs(start.ids, start.log_probs.float(), start.rest.float()), plain_logits(head, states))
    assert float(value) == pytest.approx(float(exact.sum()), rel=1e-5)


SMALL = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}  # fmt: skip
MODELS = {
    "Gemma2": {"final_logit_softcapping": 0.4},
    "Granite": {"logits_scaling": 3.0},
    "Cohere": {"logit_scale": 0.3},
    "Qwen2": {},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_head_gives_the_model_s_own_logits(name):
    config = getattr(transformers, f"{name}Config")(**SMALL, **MODELS[name])
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    rows = [[3, 4, 5, 6, 7], [9, 8, 7]]
    places = [[0, 2, 3], [1]]
    found: list[TopLogProbs] = []
    with torch.no_grad():
        pass_for_states(
            model, model, padded(rows, 0, torch.device("cpu")),
            lambda states: found.append(log_probs_at_places(at_places(states, places), Head.of(model), 40)),
        )  # fmt: skip
        own = [model(torch.tensor([row])).logits[0, of_row] for row, of_row in zip(rows, places, strict=True)]
    wanted = top_log_probs(torch.cat(own), 40)
    assert float(own[0].abs().max()) > 1e-3
    torch.testing.assert_close(found[0].log_probs, wanted.log_probs, rtol=1e-5, atol=1e-5)
