"""The files in ``examples/configs``, read as ``--config`` reads them, for small models of their families."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config

from tests.cli.conftest import TESTBED_MODEL, Cli
from tests.structure.code import ROOT

CONFIGS = ROOT / "examples" / "configs"
FILES = sorted(CONFIGS.glob("*/*.yaml"))
FAMILIES = {
    "qwen2.5": (Qwen2Config, "Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
    "llama-3": (LlamaConfig, "meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
    "mistral": (MistralConfig, "mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552),
}
KINDS = {"sft": "train-sft", "sft-lora": "train-sft", "dpo": "train-dpo", "dpo-lora": "train-dpo"}


def name(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of each family, with the testbed's tokenizer, and an adapter for each."""
    root = tmp_path_factory.mktemp("families")
    for family, (config_class, _, _) in FAMILIES.items():
        config = config_class(
            vocab_size=586, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=4096,
            tie_word_embeddings=True, eos_token_id=4, pad_token_id=0,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_config(config)
        model.save_pretrained(root / family)
        for part in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(TESTBED_MODEL / part, root / family)
        model.name_or_path = str(root / family)
        get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(root / f"{family}-lora")
    return root


def test_every_family_has_every_kind() -> None:
    assert {name(file) for file in FILES} == {f"{family}/{kind}" for family in FAMILIES for kind in KINDS}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_the_file_can_be_used(cli: Cli, made: Path, models: Path, file: Path) -> None:
    family, kind = file.parent.name, file.stem
    command = KINDS[kind]
    assert f"#   ogpsa {command} --config examples/configs/{name(file)}.yaml\n" in file.read_text()
    model = models / (f"{family}-lora" if kind == "dpo-lora" else family)
    data = made / ("safety" if command == "train-sft" else "pairs")
    inputs = ["--set", f"model={model}", "--set", f"data={data}", "--set", f"anchor={made / 'general'}"]
    outcome = cli(command, "--config", file, *inputs, "--out", "run", "--dry-run")
    assert outcome.code == 0, outcome.err
    rate = {"sft": 1e-5, "sft-lora": 1e-4, "dpo": 1e-6, "dpo-lora": 5e-6}[kind]
    assert float(yaml.safe_load(outcome.out)["learning_rate"]) == rate


@pytest.mark.parametrize("file", FILES, ids=name)
def test_models_rows_and_memory_are_as_the_comments_say(file: Path) -> None:
    family, kind = file.parent.name, file.stem
    _, hub, number = FAMILIES[family]
    text, values = file.read_text(), yaml.safe_load(file.read_text())
    assert values["model"] == (hub if kind.startswith("sft") else f"runs/{family}/{kind.replace('dpo', 'sft')}")
    assert hub in text
    assert values["out"] == f"runs/{family}/{kind}"
    told = [float(figure) for figure in re.findall(r"(\d+\.\d) GiB", text)]
    if kind.endswith("lora"):
        assert told == [round(2 * number / 2**30, 1)]
        return
    # In bf16: 2 bytes of weights, 4 of gradients summed in fp32, and 12 of AdamW's state with a copy of the weights.
    assert values["zero"] == 2
    ranks = values["num-procs"]
    assert told == [round(each * number / 2**30, 1) for each in (2 + 16 / ranks, 18 / ranks)]
    assert f"{number:,}" in text
