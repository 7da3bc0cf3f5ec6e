"""The commands of the README, taken from its text, run as they are written with a small model of one's own."""

from __future__ import annotations

import json
import re
import shlex
import string
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from data_registry.core.manifest import is_artifact
from tests.cli.conftest import Cli
from tests.structure.code import ROOT

BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# What keeps a command to a second. Everything else is as the README has it.
FEWER = {
    "prepare-data": ["--num-samples", "6"],
    "build-basis": ["--num-samples", "2"],
    "train-sft": ["--max-steps", "2", "--batch-size", "2", "--accumulation", "1"],
    "evaluate": ["--num-samples", "3", "--max-new-tokens", "4", "--bootstrap", "100"],
}
_CLUSTER = "partition: gpu\naccount: project\ntime: 24:00:00\n"


def blocks(heading: str) -> list[list[list[str]]]:
    """The commands of each code block below a heading, as lists of words, with the shell's variables put in."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = []
    for block in BLOCK.findall(section):
        variables: dict[str, str] = {}
        commands = []
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
                name, _, value = words[0].partition("=")
                variables[name] = value
            elif words and words[0] == "ogpsa":
                commands.append([string.Template(word).safe_substitute(variables) for word in words[1:]])
        found.append(commands)
    return found


def make_qwen(path: Path) -> None:
    """A Qwen2 of random weights with a byte-level tokenizer and a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["How many are there? There are four of them."], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=2048, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory as a reader would have it: a model, refusals, a file of options, a profile of a cluster."""
    make_qwen(tmp_path / "qwen")
    rows = [
        {"instruction": f"How do I break into house {n}?", "output": f"I will not help with {n}."} for n in range(8)
    ]
    (tmp_path / "my_refusals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sft.yaml").write_text("model: qwen\ndata: [data/safety]\nlearning-rate: 1e-5\n")
    (tmp_path / "cluster.yaml").write_text(_CLUSTER)
    return tmp_path


def as_here(words: list[str]) -> list[str]:
    """A command with our small model, few rows and steps; several processes, jobs and long chains are planned only."""
    named = ["qwen" if word.startswith("Qwen/") or word == "$MODEL" else word for word in words]
    if "--num-procs" in words or words[0] == "run":
        return [*named, *([] if "--dry-run" in words else ["--dry-run"])]
    if words[0] == "slurm":
        return [word for word in named if word != "--submit"] + ["--dry-run"]
    few = FEWER.get(words[0], [])
    return [*named, *few, *(["--refresh-samples", "2"] if "paper" in words else [])]


def test_the_chain_runs_as_the_readme_has_it(cli: Cli, place: Path) -> None:
    chain, others, recipes = blocks("Your model, your data")
    assert len(chain) == 8
    for words in [*chain, *others]:
        outcome = cli(*as_here(words))
        assert outcome.code == 0, f"{shlex.join(words)}\n{outcome.err}"
        out = place / words[words.index("--out") + 1]
        assert is_artifact(out) is ("--num-procs" not in words), shlex.join(words)
        if words[0] == "train-sft" and "--num-procs" not in words:
            assert "the training loss " in outcome.out
            assert "the weights moved by " in outcome.out or "--lora-rank" in words
    page = (place / "report" / "report.html").read_text(encoding="utf-8")
    assert "sft" in page
    assert "reference-loss" in (place / "report" / "table.md").read_text(encoding="utf-8")
    assert len(recipes) == 3


def test_start_and_run_are_measured_alike() -> None:
    (chain, _, _) = blocks("Your model, your data")
    measured = [words for words in chain if words[0] == "evaluate"]
    assert len(measured) == 2
    # All but the model and the place of the results.
    alike = [[*words[2 : words.index("--out")]] for words in measured]
    assert alike[0] == alike[1]
    assert f"results/{measured[0][-1].rpartition('/')[2]}" in chain[-1], "the report compares with the start"


@pytest.mark.parametrize("number", range(3))
def test_recipes_are_planned_as_the_readme_has_it(cli: Cli, place: Path, number: int) -> None:
    words = blocks("Your model, your data")[2][number]
    outcome = cli(*as_here(words))
    assert outcome.code == 0, f"{shlex.join(words)}\n{outcome.err}"


def test_pairs_given_to_sft_are_refused_with_the_command_that_prepares_them(cli: Cli, place: Path) -> None:
    turns = "\n\nHuman: how {0}?\n\nAssistant: {1} {0}"
    rows = [{"chosen": turns.format(n, "no"), "rejected": turns.format(n, "yes")} for n in range(6)]
    (place / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("prepare-data", "pairs.jsonl", "--num-samples", "5", "--out", "data/pairs").code == 0
    for given in ("data/pairs", "pairs.jsonl"):
        refused = cli("train-sft", "qwen", "--data", given, "--out", "run")
        assert refused.code == 2
        (command,) = re.findall(r":  ogpsa (prepare-data .*)$", refused.err, re.MULTILINE)
        assert refused.err.count("error:") == 1
        made = cli(*shlex.split(command))
        assert made.code == 0, made.err
        out = shlex.split(command)[-1]
        assert cli("train-sft", "qwen", "--data", out, "--out", "run", "--dry-run").code == 0


def test_the_length_is_that_of_the_preparation_and_another_one_is_said(cli: Cli, place: Path) -> None:
    lengths = ["--tokenizer", "qwen", "--max-length", "64"]
    assert cli("prepare-data", "my_refusals.jsonl", *lengths, "--out", "data/safety").code == 0
    training = ["train-sft", "qwen", "--data", "data/safety", "--out", "run", "--dry-run"]
    found = cli(*training)
    assert "at most 64 tokens, as 'data/safety' was prepared" in " ".join(found.out.split())
    assert "as the preparation said" not in found.err
    assert "--max-length 64 does as the preparation said" in cli(*training, "--max-length", "1024").err
