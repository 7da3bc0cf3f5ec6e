"""Log-probabilities of labelled tokens, beside the plain formula in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from pipelines.passes import log_probs
from pipelines.tokens.padding import collate_pairs
from tests.distributed import worlds
from tests.reference import plain


def made(rows: int, length: int, vocabulary: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Random logits and labels, of which about a share is labelled."""
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(rows, length, vocabulary, generator=generator)
    labels = torch.randint(vocabulary, (rows, length), generator=generator)
    return logits, labels.masked_fill(torch.rand(rows, length, generator=generator) >= share, -100)


def in_float64(logits: Tensor, labels: Tensor) -> Tensor:
    """``[rows, length - 1]``, one token at a time."""
    result = torch.zeros(len(labels), labels.shape[1] - 1, dtype=torch.float64)
    for row in range(len(labels)):
        for position in range(1, labels.shape[1]):
            label = int(labels[row, position])
            if label != -100:
                result[row, position - 1] = logits[row, position - 1].double().log_softmax(-1)[label]
    return result


@settings(deadline=None)
@given(
    rows=st.integers(1, 5),
    length=st.integers(1, 9),
    vocabulary=st.integers(1, 70),
    share=st.sampled_from((0.0, 0.3, 1.0)),
    dtype=st.sampled_from((torch.float32, torch.bfloat16, torch.float16)),
    seed=st.integers(0, 1000),
)
def test_values_from_logits_are_those_of_the_formula(
    rows: int, length: int, vocabulary: int, share: float, dtype: torch.dtype, seed: int
) -> None:
    logits, labels = made(rows, length, vocabulary, share, seed)
    logits = logits.to(dtype)
    found, labelled = log_probs.label_log_probs(logits, labels)
    wanted = in_float64(logits, labels)
    assert found.shape == labelled.shape == (rows, length - 1)
    assert (found.dtype, labelled.dtype) == (torch.float32, torch.bool)
    assert torch.equal(labelled, labels[:, 1:] != -100)
    assert not found[~labelled].any()
    # Rounded to float32 once for each logit and once for their sum, whatever the logits come in.
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("vocabulary", [3, 61, 64, 1021])
def test_no_value_depends_on_how_many_are_held_at_once(vocabulary: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = made(7, 83, vocabulary, 0.8, seed=1)
    at_once, _ = log_probs.label_log_probs(logits, labels)
    held = []
    of_torch = log_probs.functional.cross_entropy

    def counting(chunk: Tensor, *arguments: Tensor, reduction: str) -> Tensor:
        held.append(len(chunk))
        return of_torch(chunk, *arguments, reduction=reduction)

    monkeypatch.setattr(log_probs.functional, "cross_entropy", counting)
    monkeypatch.setattr(log_probs, "_MAX_LOGITS", 1)
    in_chunks, labelled = log_probs.label_log_probs(logits, labels)
    assert max(held) == 64
    assert sum(held) == int(labelled.sum())
    assert torch.equal(at_once, in_chunks)


def test_gradients_are_those_of_the_formula() -> None:
    logits, labels = made(3, 6, 11, 0.5, seed=2)
    mine, theirs = (logits.clone().requires_grad_() for _ in range(2))
    weights = torch.randn(3, 5, generator=torch.Generator().manual_seed(3))
    (log_probs.label_log_probs(mine, labels)[0] * weights).sum().backward()
    (in_float64(theirs, labels) * weights).sum().backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_the_loss_head_gives_the_values_of_whole_logits_and_completions_are_their_sums(tmp_path: Path) -> None:
    path = worlds.make_model(tmp_path / "model")
    pairs = worlds.encoded_pairs(worlds.make_pairs(tmp_path / "pairs", 5, seed=4), path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    batch = collate_pairs(pairs, pad_token_id=0)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        log_probs.add_loss_head(model)
        by_head, labelled = log_probs.token_log_probs(model, batch)
        chosen, rejected = log_probs.completion_log_probs(model, batch)
        wanted = [
            [plain.completion_log_prob(model, pair["prompt_ids"], pair[f"{side}_ids"]) for pair in pairs]
            for side in ("chosen", "rejected")
        ]
    by_logits, labelled_too = log_probs.label_log_probs(logits, batch["labels"])
    assert torch.equal(labelled, labelled_too)
    torch.testing.assert_close(by_head, by_logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.cat([chosen, rejected]), by_head.sum(1))
    torch.testing.assert_close(torch.stack([chosen, rejected]), torch.tensor(wanted), rtol=1e-5, atol=1e-4)


def test_a_batch_without_labels_has_a_loss_of_nothing_that_can_be_differentiated(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(worlds.make_model(tmp_path / "model"), dtype=torch.float32)
    log_probs.add_loss_head(model)
    ids = torch.tensor([[1, 2, 3]])
    found, labelled = log_probs.token_log_probs(model, {"input_ids": ids, "labels": torch.full_like(ids, -100)})
    assert not labelled.any()
    found.sum().backward()
    assert not any(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)
