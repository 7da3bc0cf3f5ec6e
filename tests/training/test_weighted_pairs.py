"""DPO with weights of tokens and filtered answers: against TRL's own loss, and a float64 formula pair by pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from data_registry.core.errors import ConfigError
from pipelines.configs.train import TrainDpoConfig
from pipelines.models.reference import resolve_model
from pipelines.training import dpo
from pipelines.training.data.reference_log_probs import FILE, FOLDER
from pipelines.training.losses import _OF_LOG_RATIOS, check_loss, known_losses
from tests.distributed import worlds
from tests.training.small_token_weights import store

NUM_PAIRS, BETA, SIDES = 4, 0.3, ("chosen", "rejected")
PARAMETERS: dict[str, dict[str, Any]] = {
    "robust": {"label_smoothing": 0.1},
    "exo_pair": {"label_smoothing": 1e-3},
    "discopop": {"discopop_tau": 0.07},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("weighted")
    worlds.make_model(directory / "model")
    worlds.make_pairs(directory / "pairs", NUM_PAIRS, seed=1)
    return directory


def pairs_of(world: Path) -> list[dict[str, Any]]:
    return worlds.encoded_pairs(world / "pairs", world / "model")


def random_weights(world: Path, side: str) -> list[list[float]]:
    generator = torch.Generator().manual_seed(len(side))
    lengths = [len(pair[f"{side}_ids"]) for pair in pairs_of(world)]
    return [(torch.randint(0, 9, (n,), generator=generator) / 4 - 0.5).clamp(min=0).tolist() for n in lengths]


def weights_in(world: Path, path: Path, weights: dict[str, list[list[float]]]) -> Path:
    pairs = pairs_of(world)
    ids = {side: [pair[f"{side}_ids"] for pair in pairs] for side in weights}
    return store(path, {side: list(zip(ids[side], weights[side], strict=True)) for side in weights})


def trainer_of(world: Path, name: str, **options: Any) -> Any:
    out = world / name
    out.mkdir()
    loss = options.pop("loss", "sigmoid")
    values = {
        "batch_size": NUM_PAIRS, "accumulation": 1, "max_steps": 1, "trainer": PARAMETERS.get(loss, {}),
        **({} if loss == "sft" else {"beta": BETA}), **options,
    }  # fmt: skip
    config = TrainDpoConfig(
        model=str(world / "model"), data=[world / "pairs"], out=out, precision="fp32", loss=loss, **values
    )
    check_loss(config)
    return dpo.make_trainer(config, resolve_model(config.model), None, out, torch.device("cpu"))


def move(model: Any) -> None:
    """The same way away from the starting model for every network."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


def loss_and_gradient(trainer: Any, order: Sequence[int] = range(NUM_PAIRS)) -> tuple[float, Tensor]:
    trainer.model.train()
    trainer.model.zero_grad()
    batch = trainer.data_collator([trainer.train_dataset[index] for index in order])
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()])


def started(trainer: Any, step: int = 1) -> Any:
    """As after a step, at weights other than the starting model's."""
    move(trainer.model)
    trainer.state.global_step = step
    return trainer


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_weights_of_1_and_a_filter_at_the_start_give_trls_own_bits(world: Path, tmp_path: Path) -> None:
    ones = {side: [[1.0] * len(pair[f"{side}_ids"]) for pair in pairs_of(world)] for side in SIDES}
    plain = trainer_of(world, "plain")
    weighted = trainer_of(world, "ones", token_weights=weights_in(world, tmp_path / "w", ones))
    filtered = trainer_of(world, "filtered-at-start", rejected_tokens="0.1")
    for trainer in (plain, weighted, filtered):
        move(trainer.model)
    wanted, gradient = loss_and_gradient(plain)
    for trainer in (weighted, filtered):
        loss, found = loss_and_gradient(trainer)
        assert loss == wanted
        assert torch.equal(found, gradient)
    # The filter is at work once the weights may have moved.
    filtered.state.global_step = 1
    assert loss_and_gradient(filtered)[0] != wanted
    assert float(gradient.norm()) > 1e-3


def log_ratios(world: Path, model: Any, start: Any) -> list[dict[str, Tensor]]:
    """Of the tokens of both sides of every pair, in float64 and without padding."""
    found = []
    for pair in pairs_of(world):
        of_pair = {}
        for side in SIDES:
            prompt, ids = pair["prompt_ids"], pair[f"{side}_ids"]
            values = []
            for network in (model, start):
                log_probs = network(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].double().log_softmax(-1)
                values.append(torch.stack([log_probs[len(prompt) - 1 + i, token] for i, token in enumerate(ids)]))
            of_pair[side] = values[0] - values[1].detach()
        found.append(of_pair)
    return found


def formula(world: Path, weights: dict[str, list[list[float]]], share: float | None) -> tuple[float, Tensor]:
    model, start = (AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float64) for _ in range(2))
    move(model)
    losses = []
    for index, ratios in enumerate(log_ratios(world, model, start)):
        factors = {side: torch.tensor(weights[side][index], dtype=torch.float64) for side in weights}
        if share is not None:
            rejected = ratios["rejected"].detach()
            least = rejected.sort().values[max(1, round(share * len(rejected))) - 1]
            factors["rejected"] = factors.get("rejected", torch.ones(())) * (rejected <= least)
        sums = [(factors.get(side, torch.ones(())) * ratios[side]).sum() for side in SIDES]
        losses.append(-logsigmoid(BETA * (sums[0] - sums[1])))
    loss = torch.stack(losses).mean()
    loss.backward()
    return float(loss.detach()), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("share", [None, 0.3])
@pytest.mark.parametrize("sides", [(), ("rejected",), SIDES])
def test_the_float64_formula(world: Path, tmp_path: Path, sides: tuple[str, ...], share: float | None) -> None:
    weights = {side: random_weights(world, side) for side in sides}
    if not weights and share is None:
        return
    options: dict[str, Any] = {"rejected_tokens": None if share is None else str(share)}
    if weights:
        options["token_weights"] = weights_in(world, tmp_path / "w", weights)
    ours = started(trainer_of(world, f"formula-{len(sides)}-{share}", **options))
    wanted, gradient = formula(world, weights, share)
    loss, found = loss_and_gradient(ours)
    assert loss == pytest.approx(wanted, rel=2e-6)
    assert distance(found.double(), gradient) <= 5e-6
    # However the pairs are cut into batches, and whatever they are padded with.
    parts = [loss_and_gradient(ours, order) for order in ([3], [0, 2], [1])]
    sizes = [1, 2, 1]
    assert sum(n * part[0] for n, part in zip(sizes, parts, strict=True)) / NUM_PAIRS == pytest.approx(wanted, rel=2e-6)
    mean = torch.stack([n * part[1] for n, part in zip(sizes, parts, strict=True)]).sum(0) / NUM_PAIRS
    assert distance(mean.double(), gradient) <= 5e-6


def test_the_share_that_counts_and_whole_answers_are_logged(world: Path) -> None:
    plain, ours = started(trainer_of(world, "logged-plain")), started(trainer_of(world, "logged", rejected_tokens=0.3))
    loss_and_gradient(plain)
    loss_and_gradient(ours)
    lengths = [len(pair["rejected_ids"]) for pair in pairs_of(world)]
    kept = sum(max(1, round(0.3 * length)) for length in lengths) / sum(lengths)
    logged, before = ours._metrics["train"], plain._metrics["train"]
    assert logged["rejected_tokens/kept"] == [pytest.approx(kept)]
    for side in SIDES:
        assert logged[f"logps/{side}"] == before[f"logps/{side}"]
    assert logged["rewards/chosen"] == before["rewards/chosen"]
    assert logged["rewards/rejected"] != before["rewards/rejected"]


def test_the_published_rule_takes_more_where_the_batch_is_wider(world: Path) -> None:
    ours = started(trainer_of(world, "padded", rejected_tokens="padded:0.3"))
    width = max(len(pair["prompt_ids"]) + len(pair[f"{side}_ids"]) for pair in pairs_of(world) for side in SIDES) - 1
    loss_and_gradient(ours)
    lengths = [len(pair["rejected_ids"]) for pair in pairs_of(world)]
    kept = sum(min(length, int(0.3 * width)) for length in lengths) / sum(lengths)
    assert ours._metrics["train"]["rejected_tokens/kept"] == [pytest.approx(kept)]


@pytest.mark.parametrize("loss", sorted(_OF_LOG_RATIOS))
def test_every_loss_of_log_ratios(world: Path, tmp_path: Path, loss: str) -> None:
    """A weight of 1/2 on all tokens is half of beta, wherever beta stands before the ratios and nowhere else."""
    halves = {side: [[0.5] * len(pair[f"{side}_ids"]) for pair in pairs_of(world)] for side in SIDES}
    path = weights_in(world, tmp_path / "w", halves)
    ours = started(trainer_of(world, f"half-{loss}", loss=loss, token_weights=path))
    plain = started(trainer_of(world, f"plain-{loss}", loss=loss))
    # (r/2 - 1/(2 beta))^2 is (r - 1/(2 (beta/2)))^2 / 4.
    plain.beta, factor = BETA / 2, 0.25 if loss == "sppo_hard" else 1.0
    (loss_of_ours, found), (wanted, gradient) = loss_and_gradient(ours), loss_and_gradient(plain)
    assert loss_of_ours == pytest.approx(factor * wanted, rel=1e-5)
    assert distance(found, factor * gradient) <= 1e-5


def test_which_losses_go_with_weights(world: Path) -> None:
    refused = set(known_losses()) - _OF_LOG_RATIOS
    assert refused == {"aot", "aot_unpaired", "ipo", "sft", "sigmoid_norm"}
    for loss in refused:
        with pytest.raises(ConfigError, match=f"--rejected-tokens: --loss {loss} is no function"):
            trainer_of(world, f"refused-{loss}", loss=loss, rejected_tokens=0.1)
    with pytest.raises(ConfigError, match="use_weighting weighs pairs by"):
        trainer_of(world, "refused", token_weights="w", trainer={"use_weighting": True})


def test_what_is_stored(world: Path) -> None:
    """Values of single tokens have an artifact of their own, whose sums are those stored without them."""
    trainer_of(world, "stored-plain")
    trainer_of(world, "stored", rejected_tokens=0.1)
    tables = [pq.read_table(path / FILE) for path in (world / FOLDER).iterdir()]
    sums = next(table for table in tables if table.column_names == ["chosen", "rejected"])
    tokens = next(table for table in tables if table.column_names != ["chosen", "rejected"])
    assert len(tables) == 2
    assert tokens.column_names == ["chosen", "rejected", "chosen_tokens", "rejected_tokens"]
    assert tokens.select(["chosen", "rejected"]).equals(sums)
    assert tokens.schema.field("rejected_tokens").type.value_type == pa.float32()
    stored = (tokens[column].to_pylist() for column in ("chosen", "chosen_tokens"))
    for pair, chosen, values in zip(pairs_of(world), *stored, strict=True):
        assert len(values) == len(pair["chosen_ids"])
        assert math.fsum(values) == pytest.approx(chosen, rel=1e-6)
