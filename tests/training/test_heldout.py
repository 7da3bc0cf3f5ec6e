"""The held-out loss: its value, what follows from it, and that nothing of it shows in the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from data_registry.core.errors import ConfigError, NumericsError
from data_registry.prepared import load_prepared
from pipelines.commands import train_dpo, train_sft
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.training import sft as sft_training
from pipelines.training.data import heldout
from pipelines.training.data.heldout import split_held_out
from tests.distributed import worlds
from tests.reference import plain

BETA = 0.3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("heldout")
    worlds.make_model(directory / "model", dropout=0.1)
    for name, number, seed in (("data", 16, 1), ("other", 7, 2)):
        worlds.make_data(directory / name, number, seed=seed)
        worlds.make_pairs(directory / f"{name}-pairs", number, seed=seed)
    return directory


def options(world: Path, **given: Any) -> dict[str, Any]:
    values = {"precision": "fp32", "learning_rate": 3e-3, "schedule": "constant", "batch_size": 4, "accumulation": 1}
    return {"model": str(world / "model"), "log_every": 1, "max_steps": 6, **values, **given}


def sft(world: Path, out: Path, **given: Any) -> Path:
    return train_sft.run(TrainSftConfig(data=world / "data", out=out, **options(world, **given))).path


def dpo(world: Path, out: Path, **given: Any) -> Path:
    return train_dpo.run(TrainDpoConfig(data=world / "data-pairs", out=out, beta=BETA, **options(world, **given))).path


def lines(run: Path, key: str) -> dict[int, float]:
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in metrics if key in line}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def network(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("packing", [False, True])
def test_sft_loss_is_the_mean_over_all_held_out_tokens(world: Path, packing: bool, tmp_path: Path) -> None:
    run = sft(world, tmp_path / "run", eval_data=world / "other", eval_every=2, packing=packing, max_length=128)
    measured = lines(run, "eval_loss")
    assert sorted(measured) == [2, 4, 6]
    rows = worlds.encoded(world / "other", world / "model")
    with torch.no_grad():
        assert measured[6] == pytest.approx(float(plain.mean_token_loss(network(run / "model"), rows)), rel=2e-6)
    assert 0 <= lines(run, "eval_mean_token_accuracy")[6] <= 1


def test_dpo_loss_is_the_mean_over_all_held_out_pairs(world: Path, tmp_path: Path) -> None:
    run = dpo(world, tmp_path / "run", eval_data=world / "other-pairs", eval_every=4)
    pairs = worlds.encoded_pairs(world / "other-pairs", world / "model")
    model, start = network(run / "model"), network(world / "model")
    with torch.no_grad():
        wanted = float(plain.mean_preference_loss(model, start, pairs, BETA))
    assert lines(run, "eval_loss")[6] == pytest.approx(wanted, rel=1e-5)
    assert sorted(lines(run, "eval_rewards/accuracies")) == [4, 6]
    # The trained pairs' and the held-out pairs' log-probabilities, each stored once.
    assert len(list((tmp_path / "reference-logps").iterdir())) == 2


@pytest.mark.parametrize("train", [sft, dpo])
def test_measuring_leaves_no_trace(world: Path, train: Any, tmp_path: Path) -> None:
    data = world / ("other" if train is sft else "other-pairs")
    without = train(world, tmp_path / "without")
    measured = train(world, tmp_path / "measured", eval_data=data, eval_every=1)
    assert same(weights(measured), weights(without))
    assert lines(measured, "loss") == lines(without, "loss")
    assert lines(measured, "entropy") == lines(without, "entropy")


def test_the_best_weights_are_those_of_the_step_with_the_lowest_loss(world: Path, tmp_path: Path) -> None:
    common = {"eval_data": world / "other", "eval_every": 2, "max_steps": 40}
    run = sft(world, tmp_path / "best", select="best", early_stopping=3, **common)
    measured = lines(run, "eval_loss")
    best = min(measured, key=lambda step: measured[step])
    summary = json.loads((run / "manifest.json").read_text())["summary"]
    # Random text is learnt by heart, so the held-out loss falls first and then rises.
    assert 2 <= best < max(measured)
    assert max(measured) == best + 6 == summary["stopped_early"]
    assert (summary["best_eval_step"], summary["model_of_step"]) == (best, best)
    assert summary["best_eval_loss"] == measured[best]
    assert same(weights(run), weights(sft(world, tmp_path / "shorter", max_steps=best)))
    assert not [path for path in run.rglob("*") if "best" in path.name or path.suffix == ".bin"]
    card = (run / "model" / "README.md").read_text()
    assert f"stopped early at step {best + 6}. The weights are those with the lowest held-out loss: step {best}" in card


def test_without_selection_the_last_weights_are_kept(world: Path, tmp_path: Path) -> None:
    run = sft(world, tmp_path / "last", eval_data=world / "other", eval_every=2, early_stopping=1, max_steps=40)
    last = max(lines(run, "eval_loss"))
    assert last < 40
    assert same(weights(run), weights(sft(world, tmp_path / "plain", max_steps=last)))


def test_min_delta_counts_small_gains_as_none(world: Path, tmp_path: Path) -> None:
    given = {"eval_data": world / "other", "eval_every": 1, "early_stopping": 2, "min_delta": 100.0, "max_steps": 20}
    assert max(lines(sft(world, tmp_path / "run", **given), "eval_loss")) == 3


def test_a_split_keeps_questions_together_and_trains_on_the_rest(world: Path, tmp_path: Path) -> None:
    data = world / "data"
    config = TrainSftConfig(data=data, out=tmp_path / "run", eval_split=0.3, **options(world))
    train, out = split_held_out(config, "sft")
    whole = load_prepared(data)[0]
    assert out is not None
    assert 0 < len(out) < len(whole)
    assert sorted(map(str, [*train, *out])) == sorted(map(str, whole))
    assert not {str(row["messages"][0]) for row in train} & {str(row["messages"][0]) for row in out}
    # Another question than that of prepare-data's own split, whose training side would leave nothing to hold out.
    assert lines(train_sft.run(config).path, "eval_loss")


def test_a_split_that_leaves_a_side_empty_is_refused(world: Path, tmp_path: Path) -> None:
    config = TrainSftConfig(data=world / "data", out=tmp_path / "run", eval_split=1e-6, **options(world))
    with pytest.raises(ConfigError, match="leaves nothing to measure on"):
        split_held_out(config, "sft")


def test_a_loss_that_is_not_finite_ends_the_run(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(rows: Any) -> heldout.HeldOut:
        return heldout.HeldOut(rows.to_list(), 1, ("eval_loss",), lambda *_: torch.tensor([float("nan")]).double())

    monkeypatch.setattr(sft_training, "sft_held_out", broken)
    with pytest.raises(NumericsError, match="held-out loss is nan at step 6"):
        sft(world, tmp_path / "run", eval_data=world / "other", eval_every=6)
    assert not (tmp_path / "run").exists()
