"""What could not be saved in the end is said before the first step, and generation options come through whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, GenerationConfig

from data_registry.core.errors import InputError
from pipelines.commands import train_dpo, train_sft
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.training import plots, pretraining, sft
from pipelines.training.generation_config import KeptGenerationConfig, settle_generation_config
from tests.distributed import worlds

# transformers loads these, and saves none of them once anything in them was changed.
UNSAVED: dict[str, dict[str, Any]] = {
    "sampling without do_sample": {"temperature": 0.9, "top_p": 0.6},
    "sampling with do_sample false": {"do_sample": False, "temperature": 0.2, "top_k": 20},
    "beams without beams": {"num_beams": 1, "length_penalty": 0.5},
    "penalty of typical sampling": {"typical_p": 0.9},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trial")
    worlds.make_model(directory / "model")
    worlds.make_data(directory / "data", 4, seed=1)
    worlds.make_pairs(directory / "pairs", 4, seed=2)
    return directory


def config_class(kind: str) -> tuple[Callable[[Any], Any], type[Any], str]:
    return (train_sft.run, TrainSftConfig, "data") if kind == "sft" else (train_dpo.run, TrainDpoConfig, "pairs")


def train(world: Path, model: Path, out: Path, kind: str = "sft", **options: Any) -> Path:
    run, configuration, data = config_class(kind)
    values = {"precision": "fp32", "max_steps": 1, "batch_size": 2, "accumulation": 1, **options}
    path: Path = run(configuration(model=str(model), data=world / data, out=out, **values)).path
    return path


def with_generation_config(world: Path, folder: Path, **given: Any) -> Path:
    shutil.copytree(world / "model", folder)
    # No padding token: the trainer takes that of the tokenizer, and has changed the options with it.
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 4, **given}))
    return folder


# The same code serves both commands; one kind of options shows that the other one reaches it.
@pytest.mark.parametrize(
    ("given", "kind"),
    [*((given, "sft") for given in UNSAVED.values()), *((g, "dpo") for g in UNSAVED.values() if "temperature" in g)],
)
def test_generation_options_come_through(
    world: Path, tmp_path: Path, given: dict[str, Any], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = with_generation_config(world, tmp_path / "model", **given)
    run = train(world, model, tmp_path / "run", kind)
    saved = json.loads((run / "model" / "generation_config.json").read_text())
    defaults = GenerationConfig().to_dict()
    assert {name: saved.get(name, defaults[name]) for name in given} == given
    assert saved["eos_token_id"] == 4
    assert saved["pad_token_id"] == 0
    assert "generation_config.json of the model" in caplog.text
    # And the run can be used as the model could.
    loaded = AutoModelForCausalLM.from_pretrained(run / "model").generation_config
    assert all(getattr(loaded, name) == value for name, value in given.items())


def test_options_that_can_be_saved_are_left_alone(world: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = AutoModelForCausalLM.from_pretrained(world / "model")
    for own in (GenerationConfig(), GenerationConfig(do_sample=True, temperature=0.7, top_p=0.9)):
        model.generation_config = own
        assert settle_generation_config(model) is None
        assert model.generation_config is own
    assert not caplog.text


def test_an_adapter_gets_no_generation_options(tmp_path: Path) -> None:
    KeptGenerationConfig(GenerationConfig(temperature=0.5)).write(tmp_path, GenerationConfig())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "name", "what"),
    [
        ({}, "transformers.PreTrainedTokenizerBase.save_pretrained", "tokenizer"),
        ({}, "transformers.PretrainedConfig.save_pretrained", "configuration"),
        ({}, "transformers.GenerationConfig.save_pretrained", "generation options"),
        ({"lora_rank": 2}, "peft.LoraConfig.save_pretrained", "adapter's configuration"),
    ],
)
def test_what_cannot_be_saved_is_said_before_the_first_step(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], name: str, what: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("not serializable\nand more")

    monkeypatch.setattr(name, refuse)
    monkeypatch.setattr(sft.ProjectedSFTTrainer, "training_step", None)
    with pytest.raises(InputError, match=f"the {what} of '.*' cannot be saved.*RuntimeError: not serializable"):
        train(world, world / "model", tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())


def test_the_card_is_tried_too(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> str:
        raise InputError("no card")

    monkeypatch.setattr("pipelines.training.run.model_card", refuse)
    with pytest.raises(InputError, match="no card"):
        train(world, world / "model", tmp_path / "run")


def test_no_trace_of_the_trial_is_left(world: Path, tmp_path: Path) -> None:
    run = train(world, world / "model", tmp_path / "run", eval_data=world / "data")
    assert not [path for path in run.rglob("*") if "trial" in path.name]


def test_plots_that_fail_lose_no_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no fonts here")

    monkeypatch.setattr(plots, "draw_plots", fail)
    run = train(world, world / "model", tmp_path / "run")
    assert (run / "model" / "model.safetensors").is_file()
    assert "the plots could not be drawn: RuntimeError: no fonts here" in caplog.text


def test_the_testbed_tries_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(pretraining, "save_tokenizer", refuse)
    monkeypatch.setattr(pretraining, "_train", None)
    with pytest.raises(OSError, match="no room"):
        pretraining.retrain(tmp_path / "model", steps=1)
    assert not list((tmp_path / "model").iterdir())
