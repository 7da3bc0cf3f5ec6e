"""Anchors from the options to the loss: own answers made first, packing, replay, and what is logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from data_registry.core.errors import ConfigError
from data_registry.core.manifest import read_manifest
from data_registry.prepared import load_prepared
from pipelines.commands import prepare_data, sample, train_dpo, train_sft
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.sample import SampleConfig
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.core.config import resolve
from pipelines.models.reference import resolve_model
from pipelines.training import sft
from pipelines.training.metrics import read_metrics
from pipelines.training.prompt_anchor import PromptAnchor, prompt_of
from tests.distributed import worlds

COMMON: dict[str, Any] = {"precision": "fp32", "batch_size": 4, "accumulation": 1, "max_steps": 2, "log_every": 1,
                          "learning_rate": 1e-3, "schedule": "constant", "save_every": 0}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("anchoring")
    worlds.make_model(directory / "model")
    worlds.make_data(directory / "safety", 12, seed=1)
    worlds.make_pairs(directory / "pairs", 8, seed=4)
    worlds.make_data(directory / "general", 5, seed=2)
    return directory


def train(world: Path, out: Path, **options: Any) -> tuple[Path, dict[str, torch.Tensor]]:
    config = TrainSftConfig(model=str(world / "model"), data=world / "safety", out=out, **{**COMMON, **options})
    made = train_sft.run(config)
    return made.path, load_file(made.path / "model" / "model.safetensors")


def test_a_data_set_is_answered_first_and_once(world: Path, tmp_path: Path) -> None:
    _, first = train(world, tmp_path / "one", anchor=world / "general", anchor_log_probs=8)
    (made,) = (tmp_path / "anchor-samples").iterdir()
    when = (made / "manifest.json").stat().st_mtime_ns
    _, again = train(world, tmp_path / "two", anchor=world / "general", anchor_log_probs=8)
    assert (made / "manifest.json").stat().st_mtime_ns == when
    options = {"model": str(world / "model"), "data": world / "general", "log_probs": 8}
    own = sample.run(SampleConfig(out=tmp_path / "own", **options)).path
    assert load_prepared(made)[0].to_list() == load_prepared(own)[0].to_list()
    _, stored = train(world, tmp_path / "three", anchor=own)
    for name, tensor in stored.items():
        assert torch.equal(first[name], tensor)
        assert torch.equal(again[name], tensor)


def test_replay_is_an_anchor_unless_it_is_pooled(world: Path, tmp_path: Path) -> None:
    _, replay = train(world, tmp_path / "replay", replay=world / "general", replay_ratio=0.25)
    ratio = {"anchor_kind": "ce", "anchor_ratio": 0.25}
    _, anchor = train(world, tmp_path / "anchor", anchor=world / "general", **ratio)
    _, pooled = train(world, tmp_path / "pooled", replay=world / "general", replay_ratio=0.25, replay_mean="pooled")
    assert all(torch.equal(replay[name], tensor) for name, tensor in anchor.items())
    assert not all(torch.equal(replay[name], tensor) for name, tensor in pooled.items())
    with pytest.raises(ConfigError, match="--replay-mean pooled"):
        resolve(
            TrainSftConfig,
            flags={"model": "m", "data": "d", "out": "o", "replay": "r", "replay_ratio": 0.5, "anchor": "a"},
        )


def test_what_is_logged_of_every_source(world: Path, tmp_path: Path) -> None:
    run, _ = train(
        world, tmp_path / "run", anchor=[world / "general", world / "safety"], anchor_kind="hidden", prompt_anchor=0.5,
        anchor_weight=3.0, anchor_log_probs=8,
    )  # fmt: skip
    lines = [line for line in read_metrics(run / "metrics.jsonl") if "loss" in line]
    for line in lines:
        total = line["safety/loss"] + 3 * line["anchor/hidden"] + 0.5 * line["prompt/kl"]
        assert line["loss"] == pytest.approx(total, rel=1e-4)
        assert line["anchor/rows"] == 1
        assert line["anchor/tokens"] > 0
        assert line["safety/tokens"] > 0
    # The model is the starting model in the first step.
    assert lines[0]["anchor/hidden"] < 1e-9
    assert lines[0]["anchor/kl"] < 1e-6
    assert lines[0]["prompt/kl"] < 1e-6
    assert lines[1]["anchor/kl"] > 1e-6
    assert lines[1]["prompt/kl"] > 1e-6


@pytest.mark.parametrize("packing", [False, True])
def test_prompts_are_found_in_batches_of_every_layout(world: Path, tmp_path: Path, packing: bool) -> None:
    options = {"replay": world / "general", "replay_ratio": 0.4, "replay_mean": "pooled", "prompt_anchor": 1.0}
    config = TrainSftConfig(
        model=str(world / "model"), data=world / "safety", out=tmp_path / "run", packing=packing, max_length=128,
        **{**COMMON, **options},
    )  # fmt: skip
    trainer = sft.make_trainer(config, resolve_model(config.model), None, tmp_path, torch.device("cpu"))
    anchor: PromptAnchor = trainer.beside._prompts
    found = [prompt for batch in trainer.get_train_dataloader() for prompt in anchor.find(batch)]
    rows = worlds.encoded(world / "safety", world / "model")
    wanted = sorted(prompt_of(row["input_ids"], row["labels"]) for row in rows)
    assert sorted(prompt.ids for prompt in found) == wanted
    assert all(prompt.num_places == len(prompt.ids) - 1 for prompt in found)


def test_packed_rows_count_as_rows_beside_an_anchor(world: Path, tmp_path: Path) -> None:
    run, _ = train(
        world, tmp_path / "run", packing=True, max_length=128, batch_size=1, anchor=world / "general",
        anchor_kind="ce", anchor_ratio=0.5, max_steps=1,
    )  # fmt: skip
    (line, *_) = read_metrics(run / "metrics.jsonl")
    # Twelve rows share a few sequences, and with a ratio of one half there are as many anchor rows as rows.
    assert line["anchor/rows"] > 1


def test_the_prompt_of_a_pair_is_held_once(world: Path, tmp_path: Path) -> None:
    config = TrainDpoConfig(
        model=str(world / "model"), data=world / "pairs", out=tmp_path / "dpo", prompt_anchor=1.0, **COMMON
    )
    line, *_ = read_metrics(train_dpo.run(config).path / "metrics.jsonl")
    pairs = worlds.encoded_pairs(world / "pairs", world / "model")
    assert line["prompt/tokens"] == pytest.approx(sum(len(pair["prompt_ids"]) - 1 for pair in pairs) / 2, rel=0.5)
    assert line["prompt/kl"] < 1e-6


@pytest.mark.parametrize(
    ("config_class", "options", "message"),
    [
        (TrainDpoConfig, {"prompt_anchor": 1.0, "trainer": {"padding_free": True}}, "sides of pairs share a sequence"),
        (TrainSftConfig, {"anchor": "a", "trainer": {"torch_compile": True}}, "hides the model's states"),
        (TrainSftConfig, {"anchor": ["a", "b"], "anchor_shares": "1"}, "there are 2"),
        (TrainSftConfig, {"anchor": ["a", "b"], "anchor_shares": "1,0"}, "greater than 0"),
        (TrainSftConfig, {"anchor": ["a", "a"]}, "names a set twice"),
    ],
)
def test_what_does_not_go_together_is_refused(config_class: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(config_class, flags={"model": "m", "data": "d", "out": "o", **options})


def test_odd_anchors_are_remarked_and_rows_without_an_answer_are_counted(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows, _ = load_prepared(world / "general")
    times = (1, 30, 1, 30, 30)
    made = [[{**turn, "content": f"{turn['content']} " * number} for turn in row["messages"]]
            for row, number in zip(rows, times, strict=True)]  # fmt: skip
    file = tmp_path / "anchor.jsonl"
    file.write_text("".join(json.dumps({"messages": each}) + "\n" for each in made))
    prepare_data.run(PrepareDataConfig(source=str(file), out=tmp_path / "general"))
    options: dict[str, Any] = {"anchor": tmp_path / "general", "anchor_kind": "ce", "max_steps": 1, "max_length": 60}
    run, _ = train(world, tmp_path / "cut", anchor_ratio=0.5, **options)
    left_out = read_manifest(run).summary["left_out"]
    assert left_out == {"anchor rows whose answer begins beyond --max-length": 3}
    assert "the anchor has 2 rows that can be used and every step takes 4" in caplog.text
    assert "prompts of the safety data" not in caplog.text
    caplog.clear()
    train(world, tmp_path / "few", anchor_ratio=0.3, **options)
    assert "rows that can be used" not in caplog.text
    held = {"anchor": world / "safety", "anchor_log_probs": 8, "max_steps": 1}
    train(world, tmp_path / "held", **held)
    assert "the anchor" in caplog.text
    assert f"has the prompts of the safety data '{world / 'safety'}'" in caplog.text
