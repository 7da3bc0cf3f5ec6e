"""The reference loss against a plain loop in float64."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_registry.core.errors import NumericsError
from pipelines.evaluation.suites import sample_losses as reference_loss
from pipelines.evaluation.suites.sample_losses import SampleLoss, mean_token_loss, sample_losses


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, initializer_range=0.3, attention_dropout=0.5,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def samples() -> list[tuple[list[int], list[int]]]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for length in (5, 17, 2, 9, 30, 9, 12):
        ids = torch.randint(0, 40, (length,), generator=generator).tolist()
        trained = [torch.rand(1, generator=generator).item() < 0.5 for _ in ids]
        trained[-1] = True
        made.append((ids, [token if keep else -100 for token, keep in zip(ids, trained, strict=True)]))
    return made


def plain_loop(model, samples) -> list[SampleLoss]:
    """Token by token, sample by sample, in float64."""
    import copy

    exact = copy.deepcopy(model).double().eval()
    found = []
    for ids, labels in samples:
        with torch.no_grad():
            logits = exact(input_ids=torch.tensor([ids])).logits[0]
        total, count = 0.0, 0
        for position in range(1, len(ids)):
            if labels[position] == -100:
                continue
            scores = [math.exp(score) for score in logits[position - 1].tolist()]
            total -= math.log(scores[labels[position]] / sum(scores))
            count += 1
        found.append(SampleLoss(total, count))
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_agrees_with_a_loop_in_float64(model, samples, batch_size):
    found = sample_losses(model, samples, batch_size=batch_size)
    expected = plain_loop(model, samples)
    assert [loss.num_tokens for loss in found] == [loss.num_tokens for loss in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.total == pytest.approx(theirs.total, rel=2e-6)
    assert mean_token_loss(found) == pytest.approx(mean_token_loss(expected), rel=2e-6)


def test_the_mean_is_over_tokens_not_over_samples():
    assert mean_token_loss([SampleLoss(2.0, 1), SampleLoss(2.0, 3)]) == 1.0


def test_bf16_models_are_scored_in_float32(model, samples):
    import copy

    half = copy.deepcopy(model).to(torch.bfloat16)
    ids, labels = samples[4]
    with torch.no_grad():
        logits = half.eval()(input_ids=torch.tensor([ids])).logits[0].float()
    kept = [position for position in range(1, len(ids)) if labels[position] != -100]
    expected = -sum(torch.log_softmax(logits[p - 1].double(), -1)[labels[p]].item() for p in kept)
    assert sample_losses(half, [samples[4]], batch_size=1)[0].total == pytest.approx(expected, rel=1e-6)


def test_long_samples_go_in_smaller_batches(model, samples, monkeypatch):
    whole = sample_losses(model, samples, batch_size=100)
    sizes = []
    monkeypatch.setattr(reference_loss, "_MAX_LOGITS", 40 * 40)
    cut = sample_losses(model, samples, batch_size=100, progress=sizes.append)
    assert sizes[0] == 1  # the sample of 30 tokens alone
    assert sum(sizes) == len(samples)
    assert [loss.total for loss in cut] == pytest.approx([loss.total for loss in whole], rel=1e-5)


def test_the_model_is_left_in_the_mode_it_was_in(model, samples):
    for mode in (True, False):
        model.train(mode)
        sample_losses(model, samples, batch_size=4)
        assert model.training == mode


def test_a_diverged_model_is_an_error_that_names_the_sample(model, samples):
    import copy

    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.lm_head.weight[3, 0] = float("nan")
    with pytest.raises(NumericsError, match="loss of the model is nan on sample 4"):
        sample_losses(broken, samples, batch_size=1)


def test_a_sample_without_a_label_is_an_error(model):
    with pytest.raises(ValueError, match="no labelled token"):
        sample_losses(model, [([1, 2], [1, -100])], batch_size=1)
