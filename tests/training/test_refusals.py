"""Options that the trainer, or a library behind it, refuses: said before a model is loaded, and never as a bug."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trl import DPOConfig, SFTConfig

from data_registry.core.errors import ConfigError, NumericsError
from pipelines.basis.inputs import basis_inputs
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.models.reference import resolve_model
from pipelines.training.arguments import check_trainer_options, trainer_arguments
from pipelines.training.inputs import training_inputs
from pipelines.training.refusals import check_batches, refusals
from tests.models.small_models import adapt, tiny


def options(**given_options: Any) -> TrainSftConfig:
    values = {"model": "no model", "data": "no data", "out": "out", "precision": "fp32", **given_options}
    return TrainSftConfig(**values)


def refusal(**given_options: Any) -> str:
    """What is said of the options; the same of SFT and of DPO."""
    told = []
    for arguments_class, config in (
        (SFTConfig, options(**given_options)),
        (
            DPOConfig,
            TrainDpoConfig(
                **options(**given_options).model_dump(include={"model", "data", "out", "precision", *given_options})
            ),
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            check_trainer_options(arguments_class, config)
        told.append(f"{caught.value.what} | {caught.value.fix}")
    assert told[0] == told[1]
    return told[0]


@pytest.mark.parametrize(
    ("given_options", "missing"),
    [
        ({"schedule": "cosine_with_min_lr"}, "min_lr"),
        ({"schedule": "cosine_warmup_with_min_lr"}, "min_lr"),
        ({"schedule": "warmup_stable_decay"}, "num_decay_steps"),
        ({"schedule": "reduce_lr_on_plateau"}, "evaluation, which ogpsa does not make"),
        ({"schedule": "greedy"}, "evaluation, which ogpsa does not make"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"schedule": "polynomial", "trainer": {"lr_scheduler_kwargs": {"lr_end": 1}}}, "lr_end"),
        ({"schedule": "cosine", "trainer": {"lr_scheduler_kwargs": {"none_such": 1}}}, "none_such"),
        ({"trainer": {"optim": "paged_adamw_8bit"}}, "bitsandbytes"),
        ({"trainer": {"optim": "adamw_8bit"}}, "bitsandbytes"),
        ({"trainer": {"optim": "galore_adamw"}}, "galore"),
        ({"trainer": {"optim": "adamw_apex_fused"}}, "apex|APEX"),
        ({"trainer": {"optim": "no such optimizer"}}, "not a valid"),
        ({"trainer": {"optim_args": {"a": 1}}}, "optim"),
        ({"trainer": {"use_liger_kernel": True}}, "liger-kernel is not installed"),
        ({"trainer": {"accelerator_config": "no such file"}}, "deals every row to one rank"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(given_options: dict[str, Any], missing: str) -> None:
    assert re.search(missing, refusal(**given_options))


@pytest.mark.parametrize(
    ("schedule", "own"),
    [
        ("linear", {}),
        ("cosine_with_restarts", {"num_cycles": 2}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
        ("warmup_stable_decay", {"num_decay_steps": 5}),
        ("polynomial", {"power": 2}),
        ("constant_with_warmup", {}),
        ("inverse_sqrt", {"timescale": 10}),
    ],
)
def test_schedules_that_have_their_options_are_taken(schedule: str, own: dict[str, Any]) -> None:
    check_trainer_options(SFTConfig, options(schedule=schedule, trainer={"lr_scheduler_kwargs": own} if own else {}))


def test_a_deepspeed_file_that_says_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": 7}))
    text = refusal(deepspeed=file, batch_size=2)
    assert "the file has train_micro_batch_size_per_gpu=7, the options have per_device_train_batch_size=2" in text


def test_the_only_batch_is_not_dropped() -> None:
    arguments = trainer_arguments(
        SFTConfig, options(trainer={"dataloader_drop_last": True}, batch_size=4), Path("o"), None
    )
    check_batches(arguments, 8, 2)
    with pytest.raises(ConfigError, match="leaves no batch: there are 7 rows, and a batch of all processes has 8"):
        check_batches(arguments, 7, 2)
    check_batches(trainer_arguments(SFTConfig, options(batch_size=4), Path("o"), None), 1, 2)


def of_library(error: Exception) -> None:
    """Raise an error in a function of a library."""
    json.loads("1", object_hook=None, parse_int=lambda _: exec("raise error", {"error": error}))


def test_whose_error_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="refuses its options: too large"), refusals():
        of_library(ValueError("too large"))
    # Ours, of another kind, once training is under way, or of the machine: these say themselves what they are.
    for error, passed_through, has_begun in (
        (AttributeError("x"), {}, False),
        (ValueError("x"), {"a": 1}, True),
        (OSError(errno.ENOSPC, "full"), {"a": 1}, False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), {"a": 1}, False),
        (NumericsError("the loss is nan"), {"a": 1}, False),
    ):
        with pytest.raises(type(error)) as caught, refusals(passed_through, lambda begun=has_begun: begun):
            of_library(error)
        assert caught.value is error
    # Another process that ends closes the connection to this one.
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="Connection closed by peer"), refusals({"a": 1}):
        of_library(RuntimeError("Connection closed by peer"))
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(ConfigError, match="refuses its options: AttributeError: x") as refused, refusals({"a": 1}):
        of_library(AttributeError("x"))
    assert refused.value.where == "trainer.a = 1"


NAMES = ("optim", "optim_args", "lr_scheduler_kwargs", "adam_beta1", "neftune_noise_alpha", "dataloader_num_workers",
         "torch_compile", "fsdp", "log_level", "parallelism_config", "use_cache", "gradient_checkpointing_kwargs",
         "logging_strategy", "label_names", "debug", "tf32", "data_seed", "use_liger_kernel")  # fmt: skip
VALUES = (True, 0, -1, 3, 0.5, float("nan"), "text", "adafactor", "sgd", "", [1, 2], {"a": 1}, None)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), min_size=1, max_size=2))
def test_any_option_is_taken_or_refused(trainer: dict[str, Any]) -> None:
    try:
        check_trainer_options(SFTConfig, options(trainer=trainer))
    except ConfigError as error:
        told = error.what
    else:
        told = "taken"
    assert told


def test_fresh_adapters_on_an_adapter_are_refused(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path / "base")
    adapt(tmp_path / "base", tmp_path / "adapter")
    source = resolve_model(str(tmp_path / "adapter"))
    for config_class, task in ((TrainSftConfig, "sft"), (TrainDpoConfig, "preference")):
        config = config_class(model=str(tmp_path / "adapter"), data=["no data"], out="out", lora_rank=2)
        with pytest.raises(ConfigError, match="--lora-rank makes fresh adapters") as caught:
            training_inputs(config, source, task=task)
        assert str(tmp_path / "adapter") in caught.value.what
    basis = BuildBasisConfig(model=str(tmp_path / "adapter"), reference=["no data"], out="out", lora_rank=2)
    with pytest.raises(ConfigError, match="--lora-rank makes fresh adapters"):
        basis_inputs(basis, source)
