"""merge_adapters: the command's bits, from directories and from tensors in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from data_registry.core.errors import ArtifactError, ConfigError, InputError
from pipelines import merge_adapters
from pipelines.commands import merge
from tests.merging.adapters import config, expected_rhos, middle
from tests.reference.merge_inputs import save_adapter, save_model

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("merging")
    base = save_model(root / "base", 0)
    save_model(root / "unaligned", 1)
    save_adapter(root / "task", base, 2)
    save_adapter(root / "safe", base, 3)
    return root


def base_model(made: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(made / "base", dtype=torch.float32)


METHODS: list[dict[str, Any]] = [
    {"method": "safemerge"},
    {"method": "safelora"},
    {"method": "safemerge", "threshold": "auto", "merge_fraction": 0.5, "merge_type": "ties", "density": 0.4},
    {"method": "linear", "weights": (0.3, 0.7)},
    {"method": "linear", "rank": 3},
    {"method": "dare-linear", "seed": 3, "density": 0.5},
]


@pytest.mark.parametrize("options", METHODS, ids=lambda options: "-".join(map(str, options.values())))
def test_it_is_the_commands_merge_to_the_bit(made: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    method = options["method"]
    given = dict(options)
    if method in ("safemerge", "safelora") and "threshold" not in options:
        given["cos_threshold"] = middle(expected_rhos(made))
    has_criterion, takes_safe = method.startswith("safe"), method != "safelora"
    typed = {key: [*value] if isinstance(value, tuple) else value for key, value in given.items()}
    if "cos_threshold" in typed:
        typed["cos_threshold"] = [typed["cos_threshold"]]
    left_out = {**({} if takes_safe else {"safe": None}), **({} if has_criterion else {"unaligned": None})}
    command = merge.run(config(made, tmp_path / "command", **typed, **left_out))
    wanted = load_file(tmp_path / "command" / "model" / WEIGHTS)

    safe = made / "safe" if takes_safe else None
    models = {"unaligned": made / "unaligned"} if has_criterion else {}
    placed = merge_adapters(made / "task", safe, out=tmp_path / "out", **models, **given)
    found = load_file(placed.path / "model" / WEIGHTS) if placed.path else {}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert placed.records == command.merged[0].records

    task, other = (PeftModel.from_pretrained(base_model(made), made / name) for name in ("task", "safe"))
    weights = {}
    if has_criterion:
        unaligned = AutoModelForCausalLM.from_pretrained(made / "unaligned", dtype=torch.float32)
        weights = {"aligned": base_model(made).state_dict(), "unaligned": unaligned.state_dict()}
    merged = merge_adapters(
        get_peft_model_state_dict(task), get_peft_model_state_dict(other) if takes_safe else None,
        config=task.peft_config["default"], **weights, **given,
    )  # fmt: skip
    assert merged.tensors is not None
    assert merged.tensors.keys() == wanted.keys()
    assert all(torch.equal(merged.tensors[name], wanted[name]) for name in wanted)
    assert merged.records == placed.records


def test_merged_tensors_go_back_into_a_model(made: Path) -> None:
    task, safe = (PeftModel.from_pretrained(base_model(made), made / name) for name in ("task", "safe"))
    merged = merge_adapters(
        get_peft_model_state_dict(task), get_peft_model_state_dict(safe), config=task.peft_config["default"],
        method="linear", weights=(0.25, 0.75),
    )  # fmt: skip
    assert merged.config is not None
    known = LoraConfig.__dataclass_fields__
    again = get_peft_model(base_model(made), LoraConfig(**{k: v for k, v in merged.config.items() if k in known}))
    loaded = set_peft_model_state_dict(again, merged.tensors)
    assert not loaded.unexpected_keys
    parts = [model.merge_and_unload().state_dict() for model in (again, task, safe)]
    base = base_model(made).state_dict()
    for name, weight in base.items():
        wanted = weight + 0.25 * (parts[1][name] - weight) + 0.75 * (parts[2][name] - weight)
        torch.testing.assert_close(parts[0][name], wanted, rtol=1e-5, atol=1e-5)


def test_arguments_that_do_not_go_together_are_refused(made: Path, tmp_path: Path) -> None:
    tensors = load_file(made / "task" / WEIGHTS)
    lora = {"r": 4, "lora_alpha": 8}
    out = {"out": tmp_path / "out"}
    cases: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        (made / "task", made / "safe", {}, ConfigError, "out is needed"),
        (made / "task", made / "safe", {**out, "method": "linaer"}, ConfigError, "method"),
        (made / "task", made / "safe", {**out, "wieghts": (1, 0)}, ConfigError, "weights"),
        (made / "task", made / "safe", out, ConfigError, "unaligned"),
        (made / "task", made / "safe", {**out, "cos_threshold": [0.1, 0.2]}, ConfigError, "one number"),
        (made / "task", tensors, out, ConfigError, "give the same sort"),
        (made / "nothing", made / "safe", {**out, "method": "linear"}, InputError, "nothing"),
        (3, None, out, InputError, "finetuned is a int"),
        (tensors, tensors, {"method": "linear"}, ConfigError, "no scaling"),
        (tensors, tensors, {"config": lora, **out, "method": "linear"}, ConfigError, "out has no effect"),
        (tensors, made / "safe", {"config": lora, "method": "linear"}, ConfigError, "two of the same sort"),
        (tensors, tensors, {"config": lora, "unaligned": {}}, ConfigError, "needs aligned"),
        (tensors, tensors, {"config": lora, "unaligned": {}, "aligned": {}}, InputError, "weights lack"),
        (tensors, tensors, {"config": {**lora, "r": 5}, "method": "linear"}, InputError, "says rank 5"),
        (tensors, tensors, {"config": {**lora, "use_dora": True}, "method": "linear"}, InputError, "DoRA"),
        ({}, tensors, {"config": lora, "method": "linear"}, InputError, "no tensors"),
    ]
    for finetuned, safe, options, error, text in cases:
        with pytest.raises(error, match=text):
            merge_adapters(finetuned, safe, **options)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    with pytest.raises(ArtifactError, match="not an artifact"):
        merge_adapters(made / "task", made / "safe", **out, method="linear")
