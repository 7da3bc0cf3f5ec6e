"""Distributions over tokens: the most likely ones and the rest, and the divergence from them, against float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from pipelines.passes.distributions import (
    TopLogProbs,
    batches_by_size,
    forward_kl,
    places_of,
    row_distributions,
    top_log_probs,
)

shapes = st.tuples(st.integers(1, 5), st.integers(2, 40), st.integers(1, 50), st.integers(0, 10**6))


def drawn(seed: int, places: int, vocabulary: int, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(places, vocabulary, generator=torch.Generator().manual_seed(seed))


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    exponentials = (logits.double() - logits.double().max(-1, keepdim=True).values).exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def plain_kl(start: torch.Tensor, logits: torch.Tensor, k: int) -> torch.Tensor:
    """The divergence over the k most likely tokens and one bucket, term by term in float64."""
    p0, p = probabilities(start), probabilities(logits)
    values = []
    for before, now in zip(p0, p, strict=True):
        order = before.sort(descending=True).indices
        top, rest = order[:k], order[k:]
        terms = [before[token] * (before[token] / now[token]).log() for token in top]
        if len(rest):
            terms.append(before[rest].sum() * (before[rest].sum() / now[rest].sum()).log())
        values.append(torch.stack(terms).sum())
    return torch.stack(values)


@given(shapes)
def test_the_kept_tokens_and_the_rest_are_the_whole_distribution(shape):
    places, vocabulary, k, seed = shape
    logits = drawn(seed, places, vocabulary)
    top, expected = top_log_probs(logits, k), probabilities(logits)
    kept = min(k, vocabulary)
    assert top.ids.shape == top.log_probs.shape == (places, kept)
    torch.testing.assert_close(top.log_probs.double().exp(), expected.gather(-1, top.ids), rtol=1e-5, atol=1e-12)
    assert (top.log_probs.diff(dim=-1) <= 0).all()
    rest = expected.scatter(-1, top.ids, 0.0).sum(-1)
    torch.testing.assert_close(top.rest.double().exp(), rest, rtol=1e-5, atol=1e-12)
    if kept == vocabulary:
        assert (top.rest == -torch.inf).all()


@given(shapes)
def test_the_divergence_is_that_of_the_formula_and_never_more_than_of_all_tokens(shape):
    places, vocabulary, k, seed = shape
    start, now = drawn(seed, places, vocabulary), drawn(seed + 1, places, vocabulary)
    found = forward_kl(top_log_probs(start, k), now)
    torch.testing.assert_close(found.double(), plain_kl(start, now, k), rtol=1e-4, atol=1e-5)
    assert (found.double() <= plain_kl(start, now, vocabulary) + 1e-5).all()
    assert (forward_kl(top_log_probs(start, k), start).abs() < 1e-5).all()


@pytest.mark.parametrize("k", [1, 4, 9])
def test_gradients_of_the_divergence_by_finite_differences(k):
    start = top_log_probs(drawn(1, 3, 9), k)
    exact = TopLogProbs(start.ids, start.log_probs.double(), start.rest.double())
    logits = drawn(2, 3, 9).double().requires_grad_()
    # The function converts to float32; its own gradient is held against differences of the formula in float64.
    forward_kl(exact, logits).sum().backward()
    step = 1e-5
    for place in range(3):
        for token in range(9):
            moved = torch.zeros(3, 9, dtype=torch.float64)
            moved[place, token] = step
            up, down = (plain_kl(drawn(1, 3, 9), logits.detach() + sign * moved, k).sum() for sign in (1, -1))
            assert float(logits.grad[place, token]) == pytest.approx(float((up - down) / (2 * step)), abs=2e-5)


def test_an_empty_bucket_gives_no_nan():
    start = top_log_probs(torch.tensor([[80.0, 0.0, -80.0, -80.0]]), 2)
    logits = torch.zeros(1, 4, requires_grad=True)
    forward_kl(start, logits).sum().backward()
    assert torch.isfinite(logits.grad).all()
    whole = forward_kl(TopLogProbs(start.ids, start.log_probs, torch.tensor([-torch.inf])), torch.zeros(1, 4))
    assert torch.isfinite(whole).all()


def test_places_are_those_before_labelled_tokens():
    assert places_of([-100, -100, 7, 8, -100, 9]) == [1, 2, 4]
    assert places_of([5, 6]) == [0]  # no position stands before the first token


@given(st.lists(st.integers(1, 300), min_size=1, max_size=30), st.integers(1, 8), st.integers(1, 1 << 21))
def test_batches_have_every_row_once_and_no_more_logits_than_allowed(sizes, batch_size, vocabulary):
    batches = batches_by_size(sizes, batch_size, vocabulary)
    assert sorted(row for batch in batches for row in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * max(sizes[row] for row in batch) * vocabulary <= 1 << 27


def test_rows_of_a_batch_get_what_the_model_gives_them_alone():
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                    num_key_value_heads=1)
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    rows = []
    for length, prompt in ((9, 4), (5, 2), (12, 11), (3, 0)):
        ids = torch.randint(1, 40, (length,), generator=generator).tolist()
        rows.append((ids, [-100] * prompt + ids[prompt:]))
    for (ids, labels), found in zip(rows, row_distributions(model, rows, 6), strict=True):
        with torch.no_grad():
            alone = top_log_probs(model(torch.tensor([ids])).logits[0, places_of(labels)], 6)
        assert torch.equal(found.ids, alone.ids)
        torch.testing.assert_close(found.log_probs, alone.log_probs, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.rest, alone.rest, rtol=1e-5, atol=1e-5)
