"""Forgetting through the trainer: its loss and gradient against plain PyTorch, and what stays to the bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from data_registry.core.errors import ArtifactError, ConfigError
from pipelines.commands import build_mask, train_npo
from pipelines.configs.build_mask import BuildMaskConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.core.config import resolve
from pipelines.masks.opening import open_mask
from pipelines.models.reference import resolve_model
from pipelines.training import npo
from pipelines.training.metrics import read_metrics
from tests.distributed import worlds
from tests.reference.unlearning_plain import Unlearning, token_log_probs, unlearning_loss
from tests.training import small_token_weights

NUM_PAIRS = 7
LOSSES = {
    "npo-token": Unlearning("npo-token", 0.3),
    "npo": Unlearning("npo", 0.2, retain=0.7),
    "simnpo": Unlearning("simnpo", 2.5, gamma=0.4, retain=0.3),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("npo")
    worlds.make_model(directory / "model")
    worlds.make_pairs(directory / "pairs", NUM_PAIRS, seed=1)
    worlds.make_pairs(directory / "other", 5, seed=2)
    worlds.make_data(directory / "general", 5, seed=3)
    return directory


def options(world: Path, out: Path, **given: Any) -> TrainNpoConfig:
    values: dict[str, Any] = {
        "precision": "fp32", "batch_size": 2, "accumulation": 2, "max_steps": 3, "log_every": 1, "learning_rate": 1e-3,
        "schedule": "constant", "save_every": 0,
    }  # fmt: skip
    return TrainNpoConfig(model=str(world / "model"), data=world / "pairs", out=out, **{**values, **given})


def of_loss(what: Unlearning) -> dict[str, Any]:
    gamma = {"gamma": what.gamma} if what.gamma else {}
    return {"loss": what.kind, "beta": what.beta, "retain_weight": what.retain, **gamma}


def network(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def moved(model: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return model


def make_trainer(world: Path, **given: Any) -> Any:
    config = options(world, world / "run", **given)
    config.out.mkdir(exist_ok=True)
    return npo.make_trainer(config, resolve_model(config.model), None, config.out, torch.device("cpu"))


def step_gradient(trainer: Any, batches: list[list[int]]) -> tuple[float, torch.Tensor]:
    """The loss and the gradient of a step on all rows, cut into batches, at weights other than the reference's."""
    model = moved(trainer.model).train()
    collated = [trainer.data_collator([trainer.train_dataset[row] for row in rows]) for rows in batches]
    trainer.current_gradient_accumulation_steps = len(batches)
    number = trainer._get_num_items_in_batch(collated, torch.device("cpu"))
    total = 0.0
    for batch in collated:
        loss = trainer.compute_loss(model, batch, num_items_in_batch=number)
        loss.backward()
        total += loss.item()
    return total, flat(model)


def flat(model: Any) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def lines(run: Path, key: str) -> list[float]:
    return [line[key] for line in read_metrics(run / "metrics.jsonl") if key in line]


def weighted_pairs(world: Path) -> list[dict[str, Any]]:
    """The pairs, with weights of the rejected answers' tokens of which a third are 0, and all of the last answer's."""
    pairs = worlds.encoded_pairs(world / "pairs", world / "model")
    return [
        {
            **pair,
            "weights": [(row + place) % 3 / 2 * (row < NUM_PAIRS - 1) for place in range(len(pair["rejected_ids"]))],
        }
        for row, pair in enumerate(pairs)
    ]


def store(path: Path, pairs: list[dict[str, Any]], side: str = "rejected") -> Path:
    return small_token_weights.store(path, {side: [(pair[f"{side}_ids"], pair["weights"]) for pair in pairs]})


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradient_are_those_of_whole_steps_however_they_are_cut(
    world: Path, tmp_path: Path, name: str, weighted: bool
) -> None:
    what, given = LOSSES[name], of_loss(LOSSES[name])
    pairs = worlds.encoded_pairs(world / "pairs", world / "model")
    if weighted:
        pairs = weighted_pairs(world)
        given["token_weights"] = store(tmp_path / "weights", pairs)
    model = moved(network(world / "model"))
    wanted = unlearning_loss(model, network(world / "model"), pairs, what)
    wanted.backward()
    gradient = flat(model)
    for batches in ([[0, 1, 2, 3, 4, 5, 6]], [[6], [4, 1, 3], [0, 5], [2]]):
        loss, found = step_gradient(make_trainer(world, **given), batches)
        assert loss == pytest.approx(wanted.item(), rel=1e-5)
        assert float((found - gradient).norm()) <= 1e-5 * float(gradient.norm())
    assert float(gradient.norm()) > 1e-3


def test_a_small_beta_is_half_of_it_times_gradient_ascent(world: Path) -> None:
    beta = 1e-4
    _, found = step_gradient(make_trainer(world, beta=beta), [[0, 1, 2, 3, 4, 5, 6]])
    model = moved(network(world / "model"))
    pairs = worlds.encoded_pairs(world / "pairs", world / "model")
    torch.cat([token_log_probs(model, pair["prompt_ids"], pair["rejected_ids"]) for pair in pairs]).mean().backward()
    wanted = beta / 2 * flat(model)
    assert float((found - wanted).norm()) <= 1e-3 * float(wanted.norm())


def test_a_run_forgets_the_rejected_answers_and_says_how_far(world: Path, tmp_path: Path) -> None:
    run = train_npo.run(options(world, tmp_path / "run", eval_data=world / "other", eval_every=3, max_steps=9)).path
    losses, ratios = lines(run, "loss"), lines(run, "forget/log_ratio")
    assert losses[0] == pytest.approx(math.log(2), rel=1e-6)
    assert abs(ratios[0]) < 1e-5
    assert losses[-1] < losses[0]
    assert ratios[-1] < -0.05
    assert lines(run, "forget/counted") == pytest.approx([1.0] * 9)
    assert not lines(run, "retain/loss")
    # The answers of rows that are trained and of rows that are measured, each stored once.
    assert len(list((tmp_path / "reference-logps").iterdir())) == 2
    pairs = worlds.encoded_pairs(world / "other", world / "model")
    start, end = network(world / "model"), network(run / "model")
    with torch.no_grad():
        both = [[token_log_probs(m, p["prompt_ids"], p["rejected_ids"]) for p in pairs] for m in (end, start)]
        chosen = torch.cat([token_log_probs(end, p["prompt_ids"], p["chosen_ids"]) for p in pairs]).mean()
        wanted = unlearning_loss(end, start, pairs, Unlearning("npo-token", 0.1))
    assert lines(run, "eval_loss")[-1] == pytest.approx(wanted.item(), rel=1e-5)
    ratio = float((torch.cat(both[0]) - torch.cat(both[1])).mean())
    assert lines(run, "eval_log_ratio")[-1] == pytest.approx(ratio, rel=1e-4)
    assert lines(run, "eval_chosen_log_prob")[-1] == pytest.approx(chosen.item(), rel=1e-5)
    summary = json.loads((run / "manifest.json").read_text())["summary"]
    assert summary["forget/log_ratio"] == ratios[-1]
    assert "NPO on safety data" in (run / "model" / "README.md").read_text()


def test_simnpo_needs_no_reference_and_logs_what_is_retained(world: Path, tmp_path: Path) -> None:
    run = train_npo.run(options(world, tmp_path / "run", loss="simnpo", beta=2.5, retain_weight=0.5)).path
    assert not (tmp_path / "reference-logps").exists()
    for loss, forgotten, retained in zip(
        lines(run, "loss"), lines(run, "forget/loss"), lines(run, "retain/loss"), strict=True
    ):
        assert loss == pytest.approx(forgotten + 0.5 * retained, rel=1e-5)
    assert lines(run, "forget/log_prob")[-1] < 0


def test_weights_of_nothing_change_nothing(world: Path, tmp_path: Path) -> None:
    plain = weights(train_npo.run(options(world, tmp_path / "plain")).path)
    anchored = options(
        world, tmp_path / "anchored", anchor=world / "general", anchor_kind="ce", anchor_weight=0.0, retain_weight=0.0
    )
    assert all(torch.equal(tensor, plain[name]) for name, tensor in weights(train_npo.run(anchored).path).items())
    held = options(world, tmp_path / "held", anchor=world / "general", anchor_kind="ce", prompt_anchor=0.5)
    run = train_npo.run(held).path
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in weights(run).items())
    for line in (line for line in read_metrics(run / "metrics.jsonl") if "loss" in line):
        total = line["safety/loss"] + line["anchor/ce"] + 0.5 * line["prompt/kl"]
        assert line["loss"] == pytest.approx(total, rel=1e-4)


def test_weights_of_tokens_at_the_start_and_weights_of_one(world: Path, tmp_path: Path) -> None:
    pairs = weighted_pairs(world)
    weights_file = store(tmp_path / "weights", pairs)
    step = {"batch_size": NUM_PAIRS, "accumulation": 1, "max_steps": 1}
    run = train_npo.run(options(world, tmp_path / "run", token_weights=weights_file, **step)).path
    all_weights = [weight for pair in pairs for weight in pair["weights"]]
    counted = [weight for weight in all_weights if weight]
    # The mean is over the tokens that have a weight.
    assert lines(run, "loss")[0] == pytest.approx(math.log(2) * sum(counted) / len(counted), rel=1e-6)
    assert lines(run, "forget/counted") == pytest.approx([len(counted) / len(all_weights)])
    records = json.loads((run / "manifest.json").read_text())["inputs"]
    assert [record["path"] for record in records if record["role"] == "token-weights"] == [str(weights_file)]
    ones = store(tmp_path / "ones", [{**pair, "weights": [1.0] * len(pair["weights"])} for pair in pairs])
    plain = weights(train_npo.run(options(world, tmp_path / "plain")).path)
    same = weights(train_npo.run(options(world, tmp_path / "same", token_weights=ones)).path)
    assert all(torch.equal(tensor, same[name]) for name, tensor in plain.items())


def test_held_out_rows_are_not_weighted_and_rows_of_a_split_have_their_own_weights(world: Path, tmp_path: Path) -> None:
    pairs = weighted_pairs(world)
    given = {"token_weights": store(tmp_path / "weights", pairs), "eval_split": 0.4, "max_steps": 1}
    trainer = make_trainer(world, **given)
    rows = {tuple(row["input_ids"]): row["token_weights"] for row in trainer.train_dataset}
    assert 0 < len(rows) < NUM_PAIRS
    for pair in pairs:
        found = rows.get((*pair["prompt_ids"], *pair["rejected_ids"]))
        assert found is None or found == [0.0] * len(pair["prompt_ids"]) + pair["weights"]
    assert not any("token_weights" in row for row in trainer.held_out._held_out.rows)
    assert len(trainer.held_out._held_out.rows) + len(rows) == NUM_PAIRS


@pytest.mark.parametrize(
    ("change", "side", "said"),
    [
        (lambda pair: {**pair, "rejected_ids": [0, *pair["rejected_ids"][1:]]}, "rejected", "not for the tokens that"),
        (lambda pair: {**pair, "weights": [0.0] * len(pair["weights"])}, "rejected", "nothing is left to train"),
        (
            lambda pair: {**pair, "weights": [1.0] * len(pair["chosen_ids"])},
            "chosen",
            "no weights of the side 'rejected'",
        ),
    ],
)
def test_token_weights_that_cannot_be_used_are_refused(
    world: Path, tmp_path: Path, change: Any, side: str, said: str
) -> None:
    artifact = store(tmp_path / "weights", [change(pair) for pair in weighted_pairs(world)], side)
    with pytest.raises(ArtifactError, match=said):
        train_npo.run(options(world, tmp_path / "run", token_weights=artifact))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["update", "gradient"])
def test_what_a_mask_freezes_stays_to_the_bit(world: Path, tmp_path: Path, place: str) -> None:
    mask = build_mask.run(
        BuildMaskConfig(model=str(world / "model"), score="random", ratio=0.2, out=tmp_path / "mask")
    ).path
    run = train_npo.run(options(world, tmp_path / "run", mask=mask, mask_at=place, weight_decay=0.1)).path
    opened, start, end = open_mask(mask), load_file(world / "model" / "model.safetensors"), weights(run)
    for name, shape in opened.description.shapes.items():
        chosen = torch.from_numpy(opened.stored.flags(name, 0, torch.Size(shape).numel())).view(shape)
        same = start[name].view(torch.int32) == end[name].view(torch.int32)
        assert bool(same[~chosen].all())
    assert json.loads((run / "manifest.json").read_text())["summary"]["frozen_identical"] is True


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gamma": 0.5}, "--gamma needs --loss simnpo"),
        ({"beta": 0.0}, "--beta: must be greater than 0"),
        ({"beta": -1.0}, "--beta: must be greater than 0"),
        ({"retain_weight": -0.5}, "--retain-weight: must be at least 0"),
        ({"loss": "npo_token"}, "--loss: must be 'npo-token', 'npo' or 'simnpo'"),
        ({"mask": "m", "lora_rank": 4}, "--mask names weights of the model"),
    ],
)
def test_options_that_make_no_sense_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve(TrainNpoConfig, flags={"model": "m", "data": "d", "out": "o", **given})


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"packing": True}, "'trainer.packing' is decided by ogpsa, which pads"),
        ({"padding_free": True}, "'trainer.padding_free' would have no effect"),
        ({"label_smoothing_factor": 0.1}, "'trainer.label_smoothing_factor' would have no effect"),
        ({"loss_type": "dft"}, "'trainer.loss_type' is decided by --loss"),
        ({"beta": 0.1}, "'trainer.beta' is decided by --beta"),
    ],
)
def test_options_of_the_trainer_without_effect_are_refused(
    world: Path, tmp_path: Path, trainer: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        train_npo.plan(options(world, tmp_path / "run", trainer=trainer))
