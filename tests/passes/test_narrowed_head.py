"""The head at labelled places alone: the values and gradients of the head at all places, and who goes without."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from pipelines.basis.objectives.tokens import TokenLoss, token_loss_sum
from pipelines.basis.references import ReferenceSet, objectives_for_rank
from pipelines.engine.shards.opening import open_shards
from pipelines.evaluation.suites import sample_losses as suite
from pipelines.passes import log_probs, states
from pipelines.passes.gradients import reference_gradients
from tests.distributed import worlds


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = worlds.make_model(tmp_path_factory.mktemp("narrowed") / "model")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    log_probs.add_loss_head(model)
    return model


def rows(seed: int, count: int = 9, longest: int = 24) -> list[dict[str, list[int]]]:
    """Rows of unlike lengths, of which a beginning is not labelled."""
    drawn = random.Random(seed)
    found = []
    for _ in range(count):
        ids = [drawn.randrange(1, 40) for _ in range(drawn.randrange(2, longest))]
        first = drawn.randrange(1, len(ids))
        found.append({"input_ids": ids, "labels": [-100] * first + ids[first:]})
    return found


@pytest.mark.parametrize("seed", range(6))
def test_rows_of_a_basis_are_those_of_one_row_at_a_time(model: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = rows(seed)

    def gradients(batch_size: int) -> Any:
        objectives = objectives_for_rank(
            [ReferenceSet("rows", samples)], batch_size=batch_size, pad_token_id=0, rank=0, world_size=1
        )
        return reference_gradients(open_shards(model), model, token_loss_sum, objectives)

    batched = gradients(3)
    # One row at a time, and the head at every place.
    monkeypatch.setattr(log_probs, "can_narrow", lambda _: False)
    batch = [TokenLoss().collate([sample], 0) for sample in samples]
    total = sum(token_loss_sum(model, each) for each in batch)
    wanted = torch.autograd.grad(total, list(model.parameters()))  # type: ignore[arg-type]
    units = ReferenceSet("rows", samples).num_units
    for row, gradient in zip(batched.rows, wanted, strict=True):
        error = (row[0] - gradient.flatten() / units).abs().max()
        assert error <= 2e-6 * (gradient.abs().max() / units)


def of_kind(kind: str) -> Any:
    """Small models in float64: tied and untied heads, a cap on logits, logits that are divided, learnt positions."""
    torch.manual_seed(1)
    size: dict[str, Any] = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0,
    }  # fmt: skip
    if kind == "gpt2":
        made: Any = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=64))
    elif kind == "gemma2":
        # Large weights, so that the cap is felt.
        config = Gemma2Config(**size, head_dim=8, final_logit_softcapping=2.0, initializer_range=0.5)
        made = Gemma2ForCausalLM(config)
    elif kind == "granite":
        made = GraniteForCausalLM(GraniteConfig(**size, logits_scaling=3.0))
    else:
        made = LlamaForCausalLM(LlamaConfig(**size, tie_word_embeddings=kind == "tied"))
    return made.double().eval()


@pytest.mark.parametrize("kind", ["tied", "untied", "gemma2", "granite", "gpt2"])
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradients_in_one_pass_of_the_head_are_those_of_whole_logits(kind: str, seed: int) -> None:
    odd, samples = of_kind(kind), rows(200 + seed)
    logs = [odd(input_ids=torch.tensor([each["input_ids"]])).logits[0, :-1].log_softmax(-1) for each in samples]
    labels = [torch.tensor(each["labels"])[1:] for each in samples]
    inside = [of_row != -100 for of_row in labels]
    wanted = -sum(
        log[at].gather(1, of_row[at, None]).sum() for log, of_row, at in zip(logs, labels, inside, strict=True)
    )
    log_probs.add_loss_head(odd)
    batch = TokenLoss().collate(samples, 0)
    assert log_probs._head_is_ours(odd, batch["labels"])
    found = token_loss_sum(odd, batch)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    parameters = list(odd.parameters())
    gradients = zip(torch.autograd.grad(0.5 * found, parameters), torch.autograd.grad(wanted, parameters), strict=True)
    # The sum is float32 in either case; Gemma 2 goes through float32 in its layers as well.
    bound = 2e-6 if kind == "gemma2" else 1e-10
    for one, other in gradients:
        assert float((one - 0.5 * other).abs().max()) <= bound * float(other.abs().max())
    with torch.no_grad():
        values, labelled = log_probs.token_log_probs(odd, batch)
    for row, (log, of_row, at) in enumerate(zip(logs, labels, inside, strict=True)):
        assert labelled[row, : len(at)].equal(at)
        assert not labelled[row, len(at) :].any()
        assert not values[row][~labelled[row]].any()
        # The values are float32.
        each = log[at].gather(1, of_row[at, None])[:, 0].float()
        torch.testing.assert_close(values[row][labelled[row]], each, rtol=2e-6, atol=0)
    batch["labels"][:] = -100
    with torch.no_grad():
        assert not torch.cat(log_probs.token_log_probs(odd, batch)).any()
    nothing = token_loss_sum(odd, batch)
    assert float(nothing) == 0
    assert not any(grad.any() for grad in torch.autograd.grad(nothing, parameters))


def test_the_head_is_left_to_the_model_where_it_is_shared_out_or_narrow(model: Any, monkeypatch: Any) -> None:
    labels = torch.zeros(1, 3, dtype=torch.int64)
    assert log_probs._head_is_ours(model, labels)
    assert not log_probs._head_is_ours(of_kind("tied").bfloat16(), labels)
    assert not log_probs._head_is_ours(model, labels.to("meta"))
    monkeypatch.setattr(log_probs, "is_partitioned", lambda _: True)
    assert not log_probs._head_is_ours(model, labels)


@pytest.mark.parametrize("seed", range(6))
def test_log_probs_of_pairs_are_those_of_one_completion_at_a_time(model: Any, seed: int) -> None:
    drawn = random.Random(100 + seed)

    def ids(most: int) -> list[int]:
        return [drawn.randrange(1, 40) for _ in range(drawn.randrange(1, most))]

    pairs = [{"prompt_ids": ids(9), "chosen_ids": ids(20), "rejected_ids": ids(20)} for _ in range(7)]
    device = torch.device("cpu")
    sums = log_probs.completion_values(model, model, pairs, 2, 0, device)
    tokens = log_probs.completion_token_values(model, model, pairs, 2, 0, device)
    for pair, total, each in zip(pairs, sums, tokens, strict=True):
        assert each.sums == total
        assert each.tokens is not None
        for side, of_side, of_tokens in zip(("chosen", "rejected"), total, each.tokens, strict=True):
            whole = torch.tensor([[*pair["prompt_ids"], *pair[f"{side}_ids"]]])
            with torch.no_grad():
                logits = model(input_ids=whole).logits.log_softmax(-1)[0, :-1]
            wanted = logits.gather(1, whole[0, 1:, None])[len(pair["prompt_ids"]) - 1 :, 0]
            torch.testing.assert_close(torch.from_numpy(of_tokens), wanted, rtol=1e-5, atol=1e-5)
            assert of_side == pytest.approx(float(wanted.sum()), rel=1e-5)


def test_losses_of_samples_do_not_need_the_logits_of_prompts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [(row["input_ids"], row["labels"]) for row in rows(7)]
    calls: list[int] = []
    at_labels = suite._at_labels
    monkeypatch.setattr(suite, "_at_labels", lambda *given: (calls.append(1), at_labels(*given))[1])
    narrow = suite.sample_losses(model, samples, batch_size=4)
    assert len(calls) == 1 + 3
    monkeypatch.setattr(suite, "_head_can_be_narrowed", lambda *_: False)
    whole = suite.sample_losses(model, samples, batch_size=4)
    for one, other in zip(narrow, whole, strict=True):
        assert one.num_tokens == other.num_tokens
        assert one.total == pytest.approx(other.total, rel=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_ends_before_its_padding_costs_more_than_another_pass(seed: int) -> None:
    drawn = random.Random(seed)
    lengths = [drawn.randrange(2, 300) for _ in range(drawn.randrange(1, 80))]
    size, padding = drawn.randrange(1, 20), drawn.randrange(0, 600)
    batches = list(suite._batches(lengths, size, 50, padding))
    order = [lengths[index] for batch in batches for index in batch]
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert order == sorted(order, reverse=True)

    def padded(batch: list[int]) -> int:
        return sum(lengths[batch[0]] - lengths[index] for index in batch)

    for batch, after in itertools.zip_longest(batches, batches[1:]):
        assert len(batch) <= size
        assert padded(batch) <= padding
        # It ends because it has to.
        assert after is None or len(batch) == size or padded([*batch, after[0]]) > padding


class _AfterTheHead(GPT2LMHeadModel):
    """A model that does to its logits what no rule says."""

    def forward(self, *given: Any, logits_to_keep: Any = 0, **options: Any) -> Any:
        outputs = super().forward(*given, logits_to_keep=logits_to_keep, **options)
        outputs.logits = 2 * outputs.logits
        return outputs


def test_a_model_with_more_behind_its_head_is_asked_for_all_logits() -> None:
    torch.manual_seed(0)
    odd = _AfterTheHead(GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=1, n_head=2))
    torch.nn.init.normal_(odd.lm_head.weight)
    sample = ([1, 2, 3, 4, 5], [-100, -100, 3, 4, 5])
    assert not suite._head_can_be_narrowed(odd.eval(), sample)
    (loss,) = suite.sample_losses(odd, [sample], batch_size=1)
    with torch.no_grad():
        wanted = odd(input_ids=torch.tensor([sample[0]])).logits[0, 1:4].log_softmax(-1)
    assert loss.total == pytest.approx(-float(wanted[[0, 1, 2], [3, 4, 5]].sum()), rel=1e-5)


def test_a_compiled_model_keeps_its_own_head(model: Path) -> None:
    assert states.can_narrow(model)
    assert not states.can_narrow(torch.compile(model))
    assert not states.can_narrow(lambda **_: None)
