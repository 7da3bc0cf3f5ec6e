"""Freezing, on a bare model and optimizer: bits that stay, words and patterns, and the summary."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_registry.core.errors import ConfigError
from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.transforms.freezing import Freezing, frozen_tensors
from tests.transforms.small_model import OPTIMIZERS, Model, bits, make, step


@pytest.mark.parametrize(
    "options", [{}, {"space": "gradient"}, {"space": "update"}, {"space": "update", "scope": "global"}]
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_weights_keep_their_bits(optimizer: str, options: dict[str, Any]) -> None:
    names = ["layers.0.0.weight", "layers.0.0.bias", "layers.0.1.weight", "layers.1.1.weight"]
    model, chain, steps, _ = make(optimizer=optimizer, freeze=["layers.0.0.*", "layers.?.1.weight"], **options)
    before = bits(model, names)
    for number in range(4):
        change = step(model, chain, steps, measured=number % 2 == 0)
        assert all(bool(change[name].any()) for name in change if name not in names)
    assert all(torch.equal(a, b) for a, b in zip(before, bits(model, names), strict=True))


def test_the_rest_is_trained_as_if_the_frozen_were_not_there() -> None:
    """Also the clip norm is that of what is trained."""
    changes = []
    for by_us in (True, False):
        model, chain, steps, _ = make(optimizer="SGD, momentum", freeze=["norms"] if by_us else ())
        if not by_us:
            for name, p in model.named_parameters():
                p.requires_grad_(name.split(".")[2:3] != ["1"])
            steps = OPTIMIZERS["SGD, momentum"]([p for p in model.parameters() if p.requires_grad])
        torch.manual_seed(5)
        changes.append([step(model, chain, steps) for _ in range(3)] if by_us else _plain_steps(model, steps))
    for ours, other in zip(*changes, strict=True):
        for name in ours:
            # The norm to which gradients are clipped is a sum with or without zeros: it may differ in its last digit.
            torch.testing.assert_close(ours[name], other[name], rtol=0, atol=1e-7)


def _plain_steps(model: nn.Module, optimizer: Any) -> list[dict[str, Tensor]]:
    changes = []
    for _ in range(3):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.zero_grad()
        model(torch.randint(11, (6, 4))).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        changes.append({name: p.detach() - before[name] for name, p in model.named_parameters()})
    return changes


def test_words_stand_for_kinds_of_parameters() -> None:
    access = ReplicatedAccess(Model())

    def names(*patterns: str) -> set[str]:
        return {access.names[index] for index in frozen_tensors(patterns, access)}

    assert names("embeddings") == {"embed.weight"}
    assert names("norms") == {f"layers.{i}.1.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    assert names("biases") == {f"layers.{i}.{j}.bias" for i in (0, 1) for j in (0, 1)} | {"head.bias"}
    assert names("embeddings", "head.*") == {"embed.weight", "head.weight", "head.bias"}


def test_the_remedy_names_patterns_of_this_model() -> None:
    access = ReplicatedAccess(Model())
    with pytest.raises(ConfigError) as caught:
        frozen_tensors(["nothing"], access)
    assert caught.value.fix is not None
    assert "'head.*'" in caught.value.fix
    lora = nn.ModuleDict(
        {"base": nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"lora_A": nn.Linear(3, 2)})])})}
    )
    with pytest.raises(ConfigError) as caught:
        frozen_tensors(["embeddings"], ReplicatedAccess(lora))
    assert caught.value.fix is not None
    assert "'base.layers.0.*'" in caught.value.fix


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["layers.7.*"], "--freeze layers.7.* names no parameter that is trained"),
        (["embedings"], "did you mean 'embeddings'"),
        (["*"], "leaves nothing to train: all 11"),
        (["nothing", "nowhere"], "--freeze nowhere"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        frozen_tensors(patterns, ReplicatedAccess(Model()))
    assert message in str(caught.value)


def test_a_word_that_names_nothing_is_not_suggested_for_itself() -> None:
    model = Model()
    model.embed.requires_grad_(False)
    with pytest.raises(ConfigError) as caught:
        frozen_tensors(["embeddings"], ReplicatedAccess(model))
    assert "--freeze embeddings names no parameter that is trained" in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_the_summary_is_computed(tmp_path: Any) -> None:
    model, chain, steps, _ = make(freeze=["norms"])
    step(model, chain, steps)
    assert chain.finish(tmp_path) == {"frozen_tensors": 4, "frozen_identical": True}
    with torch.no_grad():
        model.layers[1][1].weight[3:5] = model.layers[1][1].weight[3:5].flip(0) + torch.tensor([0.0, 1e-7])
    assert chain.finish(tmp_path)["frozen_identical"] is False


def test_two_weights_that_change_places_are_noticed(tmp_path: Any) -> None:
    model, chain, _, _ = make(freeze=["layers.1.0.weight"])
    with torch.no_grad():
        model.layers[1][0].weight[:2] = model.layers[1][0].weight[:2].flip(0)
    assert chain.finish(tmp_path)["frozen_identical"] is False


def test_frozen_masters_begin_with_what_the_model_computes_with() -> None:
    """DeepSpeed's stage 0 in bf16 has decayed them once by then."""
    model = Model().to(torch.bfloat16)
    masters = [p.detach().float() * 0.99 for p in model.parameters()]
    access = ReplicatedAccess(model, masters)
    frozen = frozen_tensors(["norms", "biases"], access)
    Freezing(access, frozen)
    same = [torch.equal(m, p.float()) for m, p in zip(masters, model.parameters(), strict=True)]
    assert same == [index in frozen or not bool(m.any()) for index, m in enumerate(masters)]
