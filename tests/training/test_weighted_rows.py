"""SFT with weights of tokens: its loss and gradient against TRL's own, deleted labels and a float64 formula."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pipelines.configs.train import TrainSftConfig
from pipelines.models.reference import resolve_model
from pipelines.token_weights.opening import answer_tokens
from pipelines.training import sft
from pipelines.training.data.heldout import training_row_numbers
from tests.distributed import worlds
from tests.training.small_token_weights import store

NUM_ROWS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("weighted")
    worlds.make_model(directory / "model")
    worlds.make_data(directory / "data", NUM_ROWS, seed=1)
    worlds.make_data(directory / "general", 5, seed=2)
    return directory


def rows_of(world: Path) -> list[dict[str, Any]]:
    return worlds.encoded(world / "data", world / "model")


def random_weights(rows: Sequence[dict[str, Any]], seed: int = 0) -> list[list[float]]:
    """From 0 to 2 in steps that float32 holds, a third of them 0; the first row has none but zeros."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [len(answer_tokens(row["labels"])) for row in rows]
    found = [(torch.randint(0, 9, (n,), generator=generator) / 4 - 0.75).clamp(min=0).tolist() for n in lengths]
    return [[0.0] * lengths[0], *found[1:]]


def trainer_of(world: Path, out: Path, weights: list[list[float]] | None, **options: Any) -> Any:
    if weights is not None:
        answers = [answer_tokens(row["labels"]) for row in rows_of(world)]
        path = out.with_name(f"{out.name}-weights")
        options["token_weights"] = store(path, {"answer": list(zip(answers, weights, strict=True))})
    values = {"batch_size": 2, "accumulation": NUM_ROWS // 2, "max_steps": 1, **options}
    config = TrainSftConfig(model=str(world / "model"), data=[world / "data"], out=out, precision="fp32", **values)
    out.mkdir(parents=True)
    trainer = sft.make_trainer(config, resolve_model(config.model), None, out, torch.device("cpu"))
    trainer.create_optimizer()
    return trainer


def step(trainer: Any, order: Sequence[int], size: int) -> tuple[float, Tensor]:
    """Loss and gradient of one optimizer step over rows in the given order, as the trainer's loop makes them."""
    rows = [trainer.train_dataset[index] for index in order]
    keep = set(trainer._signature_columns or []) or {"input_ids", "labels", "token_weights", "seq_lengths"}
    rows = [{key: value for key, value in row.items() if key in keep} for row in rows]
    batches = [trainer.data_collator(rows[start : start + size]) for start in range(0, len(rows), size)]
    trainer.current_gradient_accumulation_steps = len(batches)
    trainer.model.train()
    trainer.model.zero_grad()
    batches, number = trainer.get_batch_samples(iter(batches), len(batches), torch.device("cpu"))
    total = 0.0
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch), num_items_in_batch=number)
        loss.backward()
        total += loss.item()
    return total, torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()])


ORDER = list(range(NUM_ROWS))


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("normalise", ["count", "weight"])
def test_weights_of_1_give_trls_own_bits(world: Path, tmp_path: Path, normalise: str, packing: bool) -> None:
    ones = [[1.0] * len(answer_tokens(row["labels"])) for row in rows_of(world)]
    options: dict[str, Any] = {"packing": True, "max_length": 40, "batch_size": 1} if packing else {}
    plain = trainer_of(world, tmp_path / "plain", None, **options)
    ours = trainer_of(world, tmp_path / "ours", ones, normalise=normalise, **options)
    order = list(range(len(plain.train_dataset)))
    assert packing is (len(order) < NUM_ROWS)
    (wanted, gradient), (loss, found) = step(plain, order, 2), step(ours, order, 2)
    assert loss == wanted
    assert torch.equal(found, gradient)
    assert float(gradient.norm()) > 1e-3


def formula(world: Path, weights: list[list[float]], by_weight: bool) -> tuple[float, Tensor]:
    """The loss in float64, row by row without padding."""
    network = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float64)
    total, count, sum_of_weights = torch.zeros((), dtype=torch.float64), 0, 0.0
    for row, of_row in zip(rows_of(world), weights, strict=True):
        log_probs = network(input_ids=torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1)
        places = [place for place, label in enumerate(row["labels"][1:]) if label != -100]
        for place, weight in zip(places, of_row, strict=True):
            total = total - weight * log_probs[place, row["input_ids"][place + 1]]
            count, sum_of_weights = count + (weight != 0), sum_of_weights + weight
    loss = total / (sum_of_weights if by_weight else count)
    loss.backward()
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in network.parameters()]
    return loss.item(), torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("normalise", ["count", "weight"])
def test_the_float64_formula_however_a_step_is_cut_and_padded(world: Path, tmp_path: Path, normalise: str) -> None:
    weights = random_weights(rows_of(world))
    wanted, gradient = formula(world, weights, normalise == "weight")
    ours = trainer_of(world, tmp_path / "ours", weights, normalise=normalise)
    for order, size in [(ORDER, 1), (ORDER, 2), (ORDER, 6), (ORDER[::-1], 3), ([3, 0, 5, 1, 4, 2], 4)]:
        loss, found = step(ours, order, size)
        assert loss == pytest.approx(wanted, rel=2e-6)
        assert distance(found.double(), gradient) <= 2e-6
    packed = trainer_of(
        world, tmp_path / "packed", weights, normalise=normalise, packing=True, max_length=40, batch_size=1
    )
    loss, found = step(packed, list(range(len(packed.train_dataset))), 1)
    assert loss == pytest.approx(wanted, rel=2e-6)
    assert distance(found.double(), gradient) <= 2e-6


def test_weights_of_0_and_1_are_deleted_labels(world: Path, tmp_path: Path) -> None:
    weights = [[float(weight > 0) for weight in row] for row in random_weights(rows_of(world), seed=1)]
    ours = trainer_of(world, tmp_path / "ours", weights)
    plain = trainer_of(world, tmp_path / "plain", None)
    rows = plain.train_dataset.to_list()
    for row, of_row in zip(rows, weights, strict=True):
        places = [place for place, label in enumerate(row["labels"]) if place and label != -100]
        for place, weight in zip(places, of_row, strict=True):
            row["labels"][place] = row["labels"][place] if weight else -100
    plain.train_dataset = rows
    (wanted, gradient), (loss, found) = step(plain, ORDER, 2), step(ours, ORDER, 2)
    assert loss == wanted
    assert torch.equal(found, gradient)


@pytest.mark.parametrize(("normalise", "factor"), [("count", 2.0), ("weight", 1.0)])
def test_doubled_weights(world: Path, tmp_path: Path, normalise: str, factor: float) -> None:
    weights = random_weights(rows_of(world))
    doubled = [[2 * weight for weight in row] for row in weights]
    once = step(trainer_of(world, tmp_path / "once", weights, normalise=normalise), ORDER, 2)
    twice = step(trainer_of(world, tmp_path / "twice", doubled, normalise=normalise), ORDER, 2)
    assert twice[0] == factor * once[0]
    assert torch.equal(twice[1], factor * once[1])


def test_a_sum_of_weights_below_1_is_divided_by_too(world: Path, tmp_path: Path) -> None:
    small = [[weight / 1024 for weight in row] for row in random_weights(rows_of(world))]
    once = step(trainer_of(world, tmp_path / "a", random_weights(rows_of(world)), normalise="weight"), ORDER, 2)
    again = step(trainer_of(world, tmp_path / "b", small, normalise="weight"), ORDER, 2)
    assert again[0] == once[0]
    assert torch.equal(again[1], once[1])


def test_replayed_rows_weigh_1(world: Path, tmp_path: Path) -> None:
    weights = random_weights(rows_of(world))
    replay: dict[str, Any] = {"replay": world / "general", "replay_ratio": 0.4, "replay_mean": "pooled"}
    rows = trainer_of(world, tmp_path / "ours", weights, **replay).train_dataset.to_list()
    assert len(rows) == NUM_ROWS + 5
    for row in rows[NUM_ROWS:]:
        counted = [label != -100 for label in row["labels"]]
        assert row["token_weights"] == [float(each) for each in counted]


def test_held_out_rows_count_every_token(world: Path, tmp_path: Path) -> None:
    """Also those that a share of the data set is: the rows that are left keep the weights of their numbers."""
    weights = [[row + 1.0] * len(answer_tokens(each["labels"])) for row, each in enumerate(rows_of(world))]
    ours = trainer_of(world, tmp_path / "ours", weights, eval_split=0.4)
    config = TrainSftConfig(model="m", data=[world / "data"], out="o", eval_split=0.4)
    numbers = training_row_numbers(config, "sft")
    assert numbers is not None
    assert 0 < len(numbers) < NUM_ROWS
    assert [max(row["token_weights"]) for row in ours.train_dataset] == [number + 1.0 for number in numbers]
    held_out = ours.held_out._held_out.rows
    assert len(held_out) == NUM_ROWS - len(numbers)
    assert "token_weights" not in ours.data_collator(held_out)
