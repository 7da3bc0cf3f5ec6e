"""Nothing assumes that a model lies where new tensors do: steps, passes and answers on a device that is not there."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from data_registry.testbed import MODEL_DIR
from pipelines.basis.objectives.tokens import token_loss_sum
from pipelines.engine.shards.opening import open_shards
from pipelines.evaluation.answering.backend import TransformersBackend
from pipelines.evaluation.answering.requests import Request
from pipelines.evaluation.contract.answer import Decoding
from pipelines.evaluation.suites.divergence import _divergences
from pipelines.passes.distributions import row_distributions
from pipelines.passes.gradients import Objective
from pipelines.passes.log_probs import add_loss_head, completion_token_values
from pipelines.token_weights import scoring
from pipelines.tokens.tokenizer import load_tokenizer
from pipelines.training.checkpoints.engine_state import read_engine_state, read_tensors, write_engine_state
from pipelines.training.data import start_outputs
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.change_tracking import ChangeTracking
from pipelines.transforms.freezing import Freezing, frozen_tensors
from pipelines.transforms.masking import masking_transforms
from pipelines.transforms.projection import Projection, ProjectionSettings
from pipelines.transforms.projector import Masked
from tests.engine.elsewhere import DEVICE, Elsewhere, a_device_elsewhere, moved

TOKENIZER = load_tokenizer(MODEL_DIR)
WAYS: list[dict[str, Any]] = [
    {"space": "gradient", "scope": "layer", "momentum": "reproject", "freeze": ["norms"], "place": "gradient"},
    {"space": "update", "refresh_every": "auto", "freeze": [], "place": "update"},
    {"space": "update", "scope": "global", "freeze": ["embeddings"], "place": None},
]


def make_model(*, head: bool = False) -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, eos_token_id=TOKENIZER.eos_token_id,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    if head:
        add_loss_head(model)
    return model


def rows(count: int) -> list[list[int]]:
    generator = random.Random(1)
    return [[generator.randrange(6, 200) for _ in range(generator.randint(4, 9))] for _ in range(count)]


ENCODED = [(row, [-100, -100, *row[2:]]) for row in rows(4)]
PAIRS = [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), rows(3), strict=True))] * 3


def batch(seed: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(6, 150, (3, 7), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}


def three_steps(model: Any, way: dict[str, Any], folder: Path) -> list[torch.Tensor]:
    """The weights after three steps with all transforms, refreshes, a checkpoint written and read back, and the end."""
    generator = torch.Generator().manual_seed(2)
    options, access = dict(way), open_shards(model.train())
    freeze, place = options.pop("freeze"), options.pop("place")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    left_alone = frozen_tensors(freeze, access) if freeze else []
    masked, masks = None, []
    if place:
        held = [
            (torch.rand(shard.numel, generator=generator) > 0.5).to(access.rows_device()) for shard in access.shards
        ]
        masked = Masked(held, [int((~each).sum()) for each in held])
        masks = masking_transforms(place, access, held, optimizer, again=options["space"] == "update")
    basis = [torch.randn(2, shard.numel, generator=generator).to(access.rows_device()) for shard in access.shards]
    settings = ProjectionSettings(**{"refresh_every": 1, "refresh_at_start": False, "strength": 1.0, **options})
    objectives = [Objective(name, [batch(seed)], [1.0], 18.0) for seed, name in enumerate(("one", "two"))]
    projection = Projection(settings, access, basis, objectives, token_loss_sum, left_alone=left_alone, masked=masked)
    frozen = [Freezing(access, left_alone)] if freeze else []
    chain = TransformChain(access, optimizer, [ChangeTracking(access), *masks, *frozen, projection])
    for step in range(3):
        if chain.refresh_due(step):
            chain.refresh(step)
        loss = token_loss_sum(model, {key: value.to(access.device()) for key, value in batch(7 + step).items()}) / 18
        loss.backward()
        chain.at_boundary(measured=step != 1)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        chain.end_step()
        optimizer.zero_grad()
        chain.figures()
        folder.mkdir(exist_ok=True)
    write_engine_state(folder, access, optimizer, chain.tensors(), 0)
    read_engine_state(folder, access, optimizer)
    chain.restore(chain.state(), read_tensors(folder, access))
    assert chain.finish(folder).get("frozen_identical", True)
    return [master.weights() for master in access.masters()]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(way["space"]))
def test_steps_with_all_transforms(way: dict[str, Any], tmp_path: Path) -> None:
    here = three_steps(make_model(head=True), way, tmp_path / "here")
    with a_device_elsewhere():
        there = three_steps(moved(make_model(head=True)), way, tmp_path / "there")
        assert all(isinstance(weights, Elsewhere) for weights in there)
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(one.detach(), other.inner, rtol=0, atol=1e-5)


def _generate(model: Any, **decoding: Any) -> Any:
    backend = TransformersBackend(model, TOKENIZER, Decoding(6, **decoding))
    return backend.generate(rows(4), max_new_tokens=6, seeds=[1, 2, 3, 4])


def _generate_by_rows(model: Any, **decoding: Any) -> Any:
    backend = TransformersBackend(model, TOKENIZER, Decoding(6, **decoding))
    requests = [Request(ids, 6 - number, seed=number, number=number) for number, ids in enumerate(rows(4))]
    made = {each.number: ids for some in backend.continue_all([requests], batch_size=2) for each, ids in some}
    assert backend.peak_bytes > 0
    return [made[number] for number in range(4)]


PASSES: dict[str, Any] = {
    "greedy answers row by row": _generate_by_rows,
    "sampled answers row by row": lambda model: _generate_by_rows(model, temperature=0.7, top_p=0.9),
    "greedy answers": _generate,
    "sampled answers": lambda model: _generate(model, temperature=0.7, top_p=0.9),
    "distributions": lambda model: [each.log_probs for each in row_distributions(model, ENCODED, 5)],
    "divergence": lambda model: _divergences(model, ENCODED, row_distributions(model, ENCODED, 5)),
    "start of anchors": lambda model: start_outputs._look(model, model, 5, model.device)(ENCODED),
    "start of hidden anchors": lambda model: start_outputs._look(model, model, 0, model.device)(ENCODED),
}
WITH_HEAD: dict[str, Any] = {
    "token scores": lambda model: scoring._look(model, model.device)(ENCODED),
    "log-probabilities of pairs": lambda model: [
        each.sums for each in completion_token_values(model, model, PAIRS, 2, 0, model.device)
    ],
}


@pytest.mark.parametrize("name", [*PASSES, *WITH_HEAD])
def test_passes_give_what_they_give_on_the_processor(name: str) -> None:
    work, head = (PASSES | WITH_HEAD)[name], name in WITH_HEAD
    wanted = work(make_model(head=head))
    with a_device_elsewhere():
        model = moved(make_model(head=head))
        assert model.device == DEVICE
        found = work(model)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_tensors_of_two_devices_do_not_meet() -> None:
    with a_device_elsewhere() as device:
        there = torch.ones(3, device=device)
        assert (there * 2).tolist() == (there + torch.tensor(1.0)).tolist() == [2.0, 2.0, 2.0]
        with pytest.raises(RuntimeError, match="two devices"):
            there + torch.ones(3)
        assert (there.to("cpu") + torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
