"""Every option of every command: it changes what is made or how, or it is refused; nothing is silently ignored."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import ValidationError

from data_registry.core.errors import ConfigError
from pipelines.configs.commands import BY_NAME, COMMANDS
from pipelines.core.config import CommandConfig, option_metadata, resolve

# The least that each command has to be given.
LEAST: dict[str, dict[str, Any]] = {
    "quickstart": {},
    "doctor": {},
    "prepare-data": {"source": "rows.jsonl", "out": "o"},
    "import-model": {"source": "m.gguf", "out": "o"},
    "sample": {"model": "m", "data": "d", "out": "o"},
    "build-basis": {"model": "m", "reference": ["r"], "out": "o"},
    "build-mask": {"model": "m", "score": "random", "out": "o"},
    "score-tokens": {"model": "m", "data": "d", "out": "o"},
    "train-sft": {"model": "m", "data": ["d"], "out": "o"},
    "train-dpo": {"model": "m", "data": ["d"], "out": "o"},
    "train-npo": {"model": "m", "data": ["d"], "out": "o"},
    "evaluate": {"model": "m", "suite": ["testbed"], "out": "o"},
    "judge": {"source": "answers.csv", "out": "o"},
    "report": {"results": ["r"], "out": "o"},
    "run": {"recipe": "testbed"},
    "slurm": {"recipe": "testbed", "profile": "p.yaml"},
    "merge": {"finetuned": "f", "safe": "s", "unaligned": "u", "out": "o"},
    "inspect": {"path": "p"},
    "chat": {"model": "m"},
    "clean": {"path": "p"},
    "testbed": {"out": "o"},
}
WATCHED = ("sample_every", "sample_prompts", "sample_tokens", "sample_temperature", "push_to_hub", "hub_private")
# What only says how a command runs and where things lie. Data, models and named files are inputs, whose contents count.
# A new option fails the test below until someone has decided whether it belongs here.
RUNTIME: dict[str, set[str]] = {
    "quickstart": set(),
    "prepare-data": {
        "streaming", "registry", "tokenizer", "chat_template", "max_dropped", "preview", "num_workers",
        "list", "describe",
    },
    "import-model": {"source"},
    "sample": {"model", "data", "batch_size", "num_procs", "chat_template", "revision"},
    "build-basis": {"model", "reference"},
    "build-mask": {"model", "change", "end", "data", "union", "intersect", "minus", "workers"},
    "score-tokens": {"model", "data", "against", "batch_size"},
    "train-sft": {
        "model", "preset", "data", "basis", "mask", "token_weights", "anchor", "eval_data", "replay", "save_every",
        "keep", "resume", "log_every", "report_to", *WATCHED,
    },
    "train-dpo": {
        "model", "preset", "data", "basis", "mask", "token_weights", "anchor", "eval_data", "save_every", "keep",
        "resume", "log_every", "report_to", *WATCHED,
    },
    "train-npo": {
        "model", "preset", "data", "basis", "mask", "token_weights", "anchor", "eval_data", "save_every", "keep",
        "resume", "log_every", "report_to", *WATCHED,
    },
    "evaluate": {
        "model", "data", "harmful", "harmless", "task_dir", "batch_size", "rejudge", "baseline", "download_only",
        "list_suites", "num_procs", "chat_template", "revision",
    },
    "judge": {"source", "batch_size", "num_procs"},
    "report": {"results"},
    "merge": {"finetuned", "safe", "base", "aligned", "unaligned", "allow_unpaired", "workers"},
    "testbed": set(),
}  # fmt: skip
ENGINE = {"num_procs", "deepspeed", "revision", "gradient_checkpointing", "chat_template"}
OUTPUT = {"out", "overwrite", "dry_run"}
PLANNED = {"plan_ranks", "plan_gpu_memory"}
RESULT: dict[str, set[str]] = {
    "quickstart": {"seed"},
    "prepare-data": {
        "source", "format", "task", "columns", "tags", "where", "source_split", "subset", "revision", "num_samples",
        "seed", "split", "heldout_fraction", "system", "trust_remote_code", "max_length", "ignore_columns",
        "drop_too_long", "pairs_per_prompt", "missing",
    },
    "import-model": {"dtype"},
    "sample": {
        "num_samples", "seed", "answers", "max_new_tokens", "temperature", "top_p", "backend", "log_probs", "precision",
        "trust_remote_code", "grade", "answer_after",
    },
    "build-basis": {
        "objective", "beta", "num_samples", "seed", "dtype", "batch_size", "max_length", "drop_too_long",
    },
    "build-mask": {
        "score", "objective", "beta", "num_samples", "batch_size", "max_length", "drop_too_long", "rank", "seed",
        "ratio", "scope", "skip_top", "order", "include", "exclude",
    },
    "score-tokens": {"side", "max_length", "drop_too_long", "rule", "map", "threshold", "top", "order"},
    "train-sft": {"packing", "replay_ratio", "replay_mean", "normalise"},
    "train-dpo": {"loss", "beta", "rejected_tokens"},
    "train-npo": {"loss", "beta", "gamma", "retain_weight"},
    "evaluate": {
        "suite", "task", "shots", "chat_prompts", "name", "num_samples", "max_length", "seed", "bootstrap",
        "max_new_tokens", "temperature", "top_p", "system", "backend", "judge", "judge_format", "precision",
        "trust_remote_code",
    },
    "judge": {
        "columns", "labels", "ignore_labels", "prompts", "judge", "judge_format", "precision", "trust_remote_code",
    },
    "report": {"start", "capability", "safety", "unlike", "details", "title", "seed", "bootstrap", "answers",
               "harmful_answers"},
    "merge": {
        "method", "merge_type", "weights", "cos_threshold", "threshold", "merge_fraction", "density", "seed",
        "original_semantics", "output", "rank", "max_shard_gb", "sweep", "suite", "safe_at_least", "evaluation",
    },
    "testbed": {"retrain", "seed"},
}  # fmt: skip
LORA_RESULT = {"lora_rank", "lora_alpha", "lora_targets", "lora_layers", "load_in_4bit"}
ENGINE_RESULT = {"zero", "offload", "precision", "attention", "trust_remote_code"}
TRAINING_RESULT = {
    "lora_dropout",
    "space", "scope", "momentum", "refresh_every", "max_drift", "refresh_samples", "strength", "eval_split",
    "eval_every", "early_stopping", "min_delta", "select", "weights", "epochs", "max_steps", "learning_rate",
    "batch_size", "accumulation", "freeze", "mask_at", "track_change", "schedule", "warmup_steps", "weight_decay",
    "max_grad_norm", "max_length", "seed", "trainer", "anchor_kind", "anchor_ratio", "anchor_weight", "anchor_shares",
    "prompt_anchor",
    "anchor_log_probs", "drop_too_long",
}  # fmt: skip
# Commands that make no artifact of their own have no identity.
MAKE_NOTHING = {"doctor", "inspect", "chat", "clean", "run", "slurm"}
# Other values where the first other one of a type would not do.
OTHER: dict[str, Any] = {
    "weights": [0.6, 0.4], "anchor_shares": [0.6, 0.4], "cos_threshold": [0.2], "sweep": [0.5],
    "trainer": {"neftune_noise_alpha": 5}, "steps": {"sft": {"seed": 1}}, "evaluation": {"num_samples": 3},
    "out": "elsewhere", "attention": "sdpa", "judge": "judge-model", "output": "adapter", "report_to": "tensorboard",
    "skip_top": 0.01, "score": "magnitude", "preset": "recommended", "rejected_tokens": "0.1", "answers": 50,
    "lora_layers": "last:1", "push_to_hub": "lab/safe",
}  # fmt: skip
# Two options say the same, or one takes the other's place; the pair is refused together, and each works alone.
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("train-sft", "weights"): {"data": ["d", "e"]},
    ("train-sft", "anchor_shares"): {"anchor": ["a", "b"]},
    ("train-dpo", "anchor_shares"): {"anchor": ["a", "b"]},
    ("train-dpo", "weights"): {"data": ["d", "e"]},
    ("train-npo", "anchor_shares"): {"anchor": ["a", "b"]},
    ("train-npo", "weights"): {"data": ["d", "e"]},
    ("merge", "threshold"): {"merge_fraction": 0.5},
    ("evaluate", "rejudge"): {"model": None, "suite": []},
    ("evaluate", "judge_format"): {"judge": "judge-model"},
    ("merge", "method"): {"safe": None},
    ("merge", "density"): {"merge_type": "ties"},
    ("merge", "seed"): {"merge_type": "ties"},
}
_FOR_MODELS = ("judge_format", "batch_size", "num_procs", "precision", "trust_remote_code")
BESIDE |= {("judge", name): {"judge": ["judge-model"]} for name in _FOR_MODELS}
OF_JUDGE = {"judge": ["judge-model"], "columns": {"prompt": "asked"}, "labels": {"evasive": "partial_refusal"}}
_SWEEP: dict[str, Any] = {"method": "linear", "unaligned": None}
BESIDE |= {(command, "preset"): {"anchor": ["a"]} for command in ("train-sft", "train-dpo", "train-npo")}
BESIDE[("merge", "sweep")] = {**_SWEEP, "suite": ["testbed"]}
BESIDE[("merge", "suite")] = {**_SWEEP, "sweep": [0.5]}
BESIDE[("merge", "safe_at_least")] = BESIDE[("merge", "evaluation")] = {
    **_SWEEP, "sweep": [0.5], "suite": ["testbed"],
}  # fmt: skip
OPTIONS = [(command.name, name) for command in COMMANDS for name in command.config_class().model_fields]


def other_value(command: str, name: str) -> Any:
    """A value that differs from the default and from what the command is given anyway."""
    info = BY_NAME[command].config_class().model_fields[name]
    if command == "judge" and name in OF_JUDGE:
        return OF_JUDGE[name]
    if name in OTHER:
        return OTHER[name]
    default = LEAST[command].get(name, None if info.is_required() else info.get_default(call_default_factory=True))
    return _other(info.annotation, default, info.metadata)


def _other(annotation: Any, default: Any, bounds: Any) -> Any:
    origin = get_origin(annotation)
    if origin is Literal:
        return next(value for value in get_args(annotation) if value != default)
    if origin in (Union, types.UnionType):
        return _other(next(kind for kind in get_args(annotation) if kind is not type(None)), default, bounds)
    if origin is list:
        return [_other(get_args(annotation)[0], None, ())]
    if origin is dict:
        return {"key": "value"}
    if annotation is bool:
        return not default
    if annotation is int:
        return max([(default or 0) + 1, *(bound.ge for bound in bounds if hasattr(bound, "ge"))])
    if annotation is float:
        return default / 2 if default else 0.5
    return Path("other") if annotation is Path else "other"


def needs_of(command: str, name: str) -> list[str]:
    info = BY_NAME[command].config_class().model_fields[name]
    found: list[str] = option_metadata(info).get("needs") or []
    return found


def meeting(command: str, needs: list[str], seen: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Options that meet needs: the first alternative of each, with what it needs itself."""
    fields = BY_NAME[command].config_class().model_fields
    for need in needs:
        field, equals, value = need.split(" or ")[0].partition("=")
        if field.startswith("!") or field.endswith("!") or field in seen:
            continue
        yield from meeting(command, needs_of(command, field), (*seen, field))
        is_list = get_origin(fields[field].annotation) is list
        # Numbers that are choices are compared as text in needs.
        wanted: Any = int(value) if value.isdecimal() else value
        yield field, (([wanted] if is_list else wanted) if equals else other_value(command, field))


def make(command: str, **options: Any) -> CommandConfig:
    return resolve(BY_NAME[command].config_class(), flags={**LEAST[command], **options})


def problems_of(command: str, **options: Any) -> list[str]:
    try:
        make(command, **options)
    except ConfigError as error:
        return error.problems
    return []


@pytest.mark.parametrize(("command", "name"), OPTIONS)
def test_an_option_changes_what_is_made_or_is_refused(command: str, name: str) -> None:
    beside = BESIDE.get((command, name)) or dict(meeting(command, needs_of(command, name), (name,)))
    value = other_value(command, name)
    # An option that has no other value than a default that asks for nothing could not be tested like this.
    assert value != type(make(command)).model_fields[name].default
    assert problems_of(command, **{**beside, name: value}) == []
    before, after = make_or_none(command, beside), make(command, **{**beside, name: value})
    if command in MAKE_NOTHING or option_metadata(type(after).model_fields[name]).get("runtime"):
        assert getattr(after, name) != type(after).model_fields[name].default
    elif before is not None:
        assert after.identity_hash() != before.identity_hash()
        assert after.differences(before.model_dump(mode="json")) == [name]


def make_or_none(command: str, options: dict[str, Any]) -> CommandConfig | None:
    """The configuration without the option in question, unless what stands beside it needs it in turn."""
    return None if problems_of(command, **options) else make(command, **options)


@pytest.mark.parametrize(("command", "name"), [(command, name) for command, name in OPTIONS if needs_of(command, name)])
def test_an_option_without_what_it_needs_is_refused_by_name(command: str, name: str) -> None:
    contrary = contrary_to(command, name)
    problems = problems_of(command, **{**contrary, name: other_value(command, name)})
    config_class = BY_NAME[command].config_class()
    info = config_class.model_fields[name]
    shown = name.upper() if option_metadata(info).get("positional") else f"--{name.replace('_', '-')}"
    about = [one for one in problems if one.removeprefix("--set tags").startswith(shown) or "--set" in one]
    assert any(" needs " in problem or " does not go with " in problem for problem in about), problems
    # Typed with its default value it is refused as well, unless that value asks for nothing.
    default = info.get_default(call_default_factory=True)
    off = option_metadata(info).get("off")
    if default is None or default is False or default in ([], {}) or default == off:
        assert not any(problem.startswith(shown) for problem in problems_of(command, **{**contrary, name: default}))
    else:
        assert any(problem.startswith(shown) for problem in problems_of(command, **{**contrary, name: default}))


def contrary_to(command: str, name: str) -> dict[str, Any]:
    """Options under which one need of an option is not met."""
    need = needs_of(command, name)[-1].split(" or ")[0]
    if need.startswith("!"):
        return {need[1:]: other_value(command, need[1:])}
    field, _, value = need.partition("=")
    if field.endswith("!"):
        return {field[:-1]: value}
    found = {
        "tags": {"format": "alpaca"}, "rank": {"output": "model"}, "max_shard_gb": {"output": "adapter"},
        "safe": {"method": "safelora"}, "weights": {"method": "safelora"}, "top_p": {"temperature": 0.0},
        **{key: {"method": "linear"} for key in ("aligned", "unaligned", "threshold", "merge_type")},
        "cos_threshold": {"threshold": "auto", "merge_fraction": 0.5},
    }  # fmt: skip
    if command == "build-mask":
        return {"score": "magnitude"} if name == "seed" else {}
    if command == "score-tokens":
        return {"rule": "edit"} if name == "threshold" else {}
    return found.get(name, {}) if command in ("merge", "prepare-data", "train-sft", "train-dpo", "train-npo") else {}


def test_what_a_dry_run_shows_is_read_back_from_a_file(tmp_path: Path) -> None:
    """Defaults of options that need others stand in such a file, and ask for nothing."""
    for command in COMMANDS:
        config = make(command.name)
        path = tmp_path / f"{command.name}.yaml"
        path.write_text(config.to_yaml())
        assert resolve(command.config_class(), file=path) == config


def test_every_option_is_classified() -> None:
    for command in COMMANDS:
        fields = set(command.config_class().model_fields)
        if command.name in MAKE_NOTHING:
            continue
        runtime, result = RUNTIME[command.name] | OUTPUT, set(RESULT[command.name])
        if "zero" in fields:
            runtime, result = runtime | ENGINE, result | ENGINE_RESULT
        if "lora_rank" in fields:
            result |= LORA_RESULT
        if "learning_rate" in fields:
            result |= TRAINING_RESULT
        if "plan_ranks" in fields:
            runtime |= PLANNED
        told = "say in tests/configs/test_every_option.py whether it changes the result"
        assert fields - runtime - result == set(), told
        assert (runtime | result) - fields == set()
        assert runtime & result == set()
        marked = {
            name for name, info in command.config_class().model_fields.items() if option_metadata(info)["runtime"]
        }
        assert marked == runtime, command.name


@pytest.mark.parametrize("command", ["train-sft", "train-dpo", "train-npo"])
def test_options_of_the_trainer_that_only_tell_or_hurry_are_no_other_settings(command: str) -> None:
    config = make(command, trainer={"dataloader_num_workers": 2, "run_name": "mine", "adam_beta1": 0.8})
    assert config.differences(make(command, trainer={"adam_beta1": 0.8}).model_dump(mode="json")) == []
    assert config.differences(make(command).model_dump(mode="json")) == ["trainer"]


@pytest.mark.parametrize("command", ["train-sft", "train-dpo", "train-npo"])
def test_epochs_are_no_other_setting_where_steps_are_counted(command: str) -> None:
    counted = make(command, max_steps=5).model_dump(mode="json")
    assert make(command, max_steps=5, epochs=7).differences(counted) == []
    assert make(command, epochs=7).differences(make(command).model_dump(mode="json")) == ["epochs"]
    assert make(command, max_steps=6).differences(counted) == ["max_steps"]


def test_a_permission_that_was_not_used_is_no_other_setting_and_a_stricter_one_is() -> None:
    then = make("prepare-data", max_dropped=0.1).model_dump(mode="json")
    assert make("prepare-data", max_dropped=0.2).differences(then) == []
    assert make("prepare-data", max_dropped=0.05).differences(then) == ["max_dropped"]
    with_gaps = make("merge", allow_unpaired=True)
    assert with_gaps.differences(make("merge").model_dump(mode="json")) == []
    assert make("merge").differences(with_gaps.model_dump(mode="json")) == ["allow_unpaired"]


def test_options_that_did_not_exist_then_had_their_defaults() -> None:
    then = make("train-sft").model_dump(mode="json")
    del then["weights"], then["packing"]
    assert make("train-sft").differences(then) == []
    assert make("train-sft", packing=True).differences(then) == ["packing"]
    # What another command made has options that this one does not know.
    assert make("train-dpo").differences(make("train-sft").model_dump(mode="json")) != []


def test_a_configuration_made_without_a_command_line_is_checked_too() -> None:
    config_class = BY_NAME["train-sft"].config_class()
    with pytest.raises(ValidationError, match="--space needs --basis"):
        config_class(**LEAST["train-sft"], space="update")
    assert config_class(**LEAST["train-sft"], space="gradient").identity() == make("train-sft").identity()


def test_which_options_need_others() -> None:
    found = {
        command.name: {n for n in command.config_class().model_fields if needs_of(command.name, n)}
        for command in COMMANDS
    }
    lora, engine = {"lora_alpha", "lora_targets", "lora_layers", "load_in_4bit"}, {"offload"}
    training = PLANNED | {
        "lora_dropout",
        "space", "scope", "momentum", "refresh_every", "max_drift", "refresh_samples", "strength", "eval_every",
        "early_stopping", "min_delta", "select", "anchor_kind", "anchor_ratio", "anchor_weight", "anchor_shares",
        "anchor_log_probs", "mask_at",
        "sample_every", "sample_prompts", "sample_tokens", "sample_temperature", "hub_private",
    }  # fmt: skip
    assert found["build-basis"] == lora | engine | PLANNED | {"beta"}
    assert found["build-mask"] == engine | {
        "change", "end", "data", "objective", "beta", "num_samples", "batch_size", "max_length", "drop_too_long",
        "rank", "seed", "zero", "deepspeed",
    }  # fmt: skip
    assert found["score-tokens"] == engine | {
        "against", "batch_size", "map", "threshold", "top", "order", "zero", "deepspeed",
    }  # fmt: skip
    assert found["train-sft"] == lora | engine | training | {"replay", "replay_ratio", "replay_mean", "normalise"}
    assert found["train-dpo"] == lora | engine | training | {"beta"}
    assert found["train-npo"] == lora | engine | training | {"gamma"}
    assert found["chat"] == {"top_p", "seed"}
    assert found["testbed"] == {"seed"}
    assert found["report"] == {"seed", "bootstrap", "harmful_answers"}
    assert found["prepare-data"] == {
        "tags", "heldout_fraction", "chat_template", "trust_remote_code", "max_length", "preview",
        "drop_too_long", "pairs_per_prompt", "missing",
    }  # fmt: skip


@pytest.mark.parametrize("command", [command for command, name in OPTIONS if name == "seed"])
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_some_library_would_refuse_is_refused_at_the_start(command: str, seed: int) -> None:
    needs = needs_of(command, "seed")
    with_seed = {**dict(meeting(command, needs, ("seed",))), "seed": seed}
    assert any("--seed" in problem and "must be at" in problem for problem in problems_of(command, **with_seed))
    assert not any("must be at" in problem for problem in problems_of(command, **{**with_seed, "seed": 2**32 - 1}))
