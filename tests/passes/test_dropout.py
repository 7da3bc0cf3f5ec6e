"""Reference passes are those of the stated loss: models that have dropout in their configuration compute without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from pipelines.basis.objectives.tokens import token_loss_sum
from pipelines.engine.shards.access import ShardAccess
from pipelines.engine.shards.opening import open_shards
from pipelines.passes.gradients import Objective, ReferenceResult, reference_gradients
from pipelines.passes.log_probs import add_loss_head
from tests.reference import plain

ROWS = [[5, 9, 3, 7, 2, 11, 4], [8, 1, 6, 2, 9]]


def gpt2() -> Any:
    # Its published configuration has all three at 0.1.
    return GPT2LMHeadModel(GPT2Config(vocab_size=12, n_positions=16, n_embd=16, n_layer=2, n_head=2))


def opt() -> Any:
    sizes: dict[str, Any] = {"vocab_size": 12, "max_position_embeddings": 16, "hidden_size": 16, "ffn_dim": 32}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 16, "pad_token_id": 0}
    return OPTForCausalLM(OPTConfig(**sizes, dropout=0.3, attention_dropout=0.2))


def computed(model: Any, access: ShardAccess) -> ReferenceResult:
    batches = [
        {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.int64),
         "labels": torch.tensor([row])}
        for row in ROWS
    ]  # fmt: skip
    objective = Objective("all", batches, [1.0] * len(ROWS), float(sum(len(row) - 1 for row in ROWS)))
    return reference_gradients(access, model, token_loss_sum, [objective])


@pytest.mark.parametrize("make", [gpt2, opt])
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_dropout_is_off(make: Callable[[], Any], recompute: bool) -> None:
    torch.manual_seed(0)
    model = make()
    wanted = plain.gradient(model.eval(), [{"input_ids": row, "labels": row} for row in ROWS])
    loss = plain.mean_token_loss(model, [{"input_ids": row, "labels": row} for row in ROWS]).item()
    add_loss_head(model)
    model.train()
    if recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    found = computed(model, open_shards(model))
    assert found.losses == pytest.approx([loss], rel=1e-5)
    for row, (name, gradient) in zip(found.rows, wanted.items(), strict=True):
        assert torch.allclose(row[0], gradient.flatten(), atol=1e-6), name
    # Training goes on with dropout.
    assert all(module.training for module in model.modules())
    with torch.no_grad():
        first, second = (model(input_ids=torch.tensor([ROWS[0]])).logits for _ in range(2))
    assert not torch.equal(first, second)


def test_what_is_recomputed_in_training_is_recomputed_in_reference_passes() -> None:
    model = gpt2()
    add_loss_head(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    forward_passes: list[bool] = []
    model.transformer.h[0].attn.register_forward_pre_hook(lambda module, _: forward_passes.append(module.training))
    computed(model.train(), open_shards(model))
    # Once forward and once in the backward pass, for each row.
    assert forward_passes == [False] * 2 * len(ROWS)
