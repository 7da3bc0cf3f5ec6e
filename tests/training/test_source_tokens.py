"""The log says how many tokens of each data set a run has trained on so far, whatever holds, packs or stops it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from data_registry.core.errors import Preempted
from pipelines.commands import train_dpo, train_npo, train_sft
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.tokens.pairs import num_tokens
from pipelines.training.data.sources import SourceTokens, source_names
from tests.distributed import worlds
from tests.invariant.resume_worker import call_stopped

KINDS: dict[str, tuple[Any, Any]] = {
    "sft": (TrainSftConfig, train_sft.run),
    "dpo": (TrainDpoConfig, train_dpo.run),
    "npo": (TrainNpoConfig, train_npo.run),
}
# Seven and five rows in steps of four: the last step of each epoch has fewer forward passes and rows than the others.
SIZES = {"a": 7, "b": 5}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sources")
    worlds.make_model(directory / "model")
    for seed, (name, number) in enumerate([*SIZES.items(), ("general", 9)], start=1):
        worlds.make_data(directory / "sft" / name, number, seed=seed)
        worlds.make_pairs(directory / "pairs" / name, number, seed=seed)
    return directory


def config_of(world: Path, kind: str, out: Path, *names: str, **given: Any) -> Any:
    folder = world / ("sft" if kind == "sft" else "pairs")
    values = {"precision": "fp32", "batch_size": 2, "accumulation": 2, "log_every": 1, "epochs": 2.0, **given}
    return KINDS[kind][0](model=str(world / "model"), data=[folder / name for name in names], out=out, **values)


def counted(run: Path) -> list[dict[str, float]]:
    """The running counts of every logged step, by source."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [{key: line[key] for key in line if key.startswith("tokens/")} for line in lines if "loss" in line]
    assert all(found) or not any(found)
    return found


def tokens_of(world: Path, kind: str, name: str) -> int:
    """The tokens that a model reads of a data set, counted by hand."""
    if kind == "sft":
        return sum(len(row["input_ids"]) for row in worlds.encoded(world / "sft" / name, world / "model"))
    pairs = worlds.encoded_pairs(world / "pairs" / name, world / "model")
    if kind == "dpo":
        return sum(map(num_tokens, pairs))
    return sum(len(pair["prompt_ids"]) + len(pair["rejected_ids"]) for pair in pairs)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("sft", {}),
        ("sft", {"packing": True, "max_length": 64}),
        ("sft", {"packing": True, "max_length": 64, "trainer": {"shuffle_dataset": True}}),
        ("sft", {"trainer": {"train_sampling_strategy": "group_by_length"}}),
        ("dpo", {}),
        ("npo", {}),
    ],
)
def test_an_epoch_has_the_tokens_of_each_set(world: Path, tmp_path: Path, kind: str, given: dict[str, Any]) -> None:
    run = KINDS[kind][1](config_of(world, kind, tmp_path / "run", "a", "b", **given)).path
    found = counted(run)
    assert [list(line) for line in found] == [["tokens/data/a", "tokens/data/b"]] * len(found)
    whole = {f"tokens/data/{name}": tokens_of(world, kind, name) for name in SIZES}
    assert found[-1] == {name: 2 * tokens for name, tokens in whole.items()}
    assert found[len(found) // 2 - 1] == whole
    assert all(line[name] >= before[name] for before, line in pairwise(found) for name in line)
    summary = json.loads((run / "manifest.json").read_text())["summary"]
    assert {name: summary[name] for name in whole} == found[-1]


def test_replay_and_anchors_are_sources_too(world: Path, tmp_path: Path) -> None:
    pooled = {"replay": world / "sft/general", "replay_ratio": 0.3, "replay_mean": "pooled"}
    run = train_sft.run(config_of(world, "sft", tmp_path / "pooled", "a", **pooled)).path
    last = counted(run)[-1]
    assert last["tokens/data/a"] == 2 * tokens_of(world, "sft", "a")
    # Three rows an epoch of the nine.
    assert 0 < last["tokens/replay/general"] < tokens_of(world, "sft", "general")
    anchors = {"anchor": [world / "sft/general"], "anchor_kind": "ce", "anchor_ratio": 0.5, "max_steps": 9}
    run = train_sft.run(config_of(world, "sft", tmp_path / "anchored", "a", **anchors)).path
    found = counted(run)
    # Four rows a step beside the safety rows: after nine steps every one of nine rows was read four times.
    assert found[-1]["tokens/anchor/general"] == 4 * tokens_of(world, "sft", "general")
    speed = json.loads((run / "manifest.json").read_text())["summary"]
    assert speed["train_tokens"] == sum(found[-1].values())


def test_one_data_set_alone_has_no_counts_of_its_own(world: Path, tmp_path: Path) -> None:
    run = train_sft.run(config_of(world, "sft", tmp_path / "run", "a", max_steps=1)).path
    assert counted(run) == [{}]


def test_a_run_that_was_stopped_goes_on_counting(world: Path, tmp_path: Path) -> None:
    whole = train_sft.run(config_of(world, "sft", tmp_path / "whole", "a", "b")).path
    config = config_of(world, "sft", tmp_path / "stopped", "a", "b", save_every=1)
    assert call_stopped(config, after=2).startswith(str(Preempted.exit_code))
    assert counted(train_sft.run(config).path) == counted(whole)


def test_counts_of_a_step_that_was_not_done_do_not_count_and_other_ranks_share_them() -> None:
    counter = SourceTokens(["data/a", "anchor/b"])
    counter.begin_step([], {1: 5})
    counter.begin_step([], {1: 7})
    counter.end_step()
    counter.end_step()
    assert counter.figures(list) == {"tokens/data/a": 0.0, "tokens/anchor/b": 7.0}
    counter.restore([[4.0, 0.0], [2.0, 6.0]], None, 3)
    assert counter.state() == [2.0, 2.0]
    counter.restore([[4.0, 0.0], [2.0, 6.0]], 1, 2)
    assert counter.state() == [2.0, 6.0]


def test_sources_of_one_name_are_told_apart() -> None:
    config = TrainSftConfig(
        model="m", data=[Path("x/train"), Path("y/train")], out=Path("o"), anchor=[Path("x/train")], anchor_kind="ce"
    )
    assert source_names(config) == ["data/x/train", "data/y/train", "anchor/train"]
