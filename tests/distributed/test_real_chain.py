"""The whole chain through the command line, two processes, real data, a local Qwen2 with its own BPE tokenizer."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tests.shared import need

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FILES = ("hh_rlhf_harmless_base_test.jsonl.gz", "halueval_general.jsonl", "gsm8k_train.jsonl")


def ogpsa(directory: Path, *arguments: str, code: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ogpsa_cli", *arguments]
    run = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=3600, check=False
    )
    assert run.returncode == code, f"{' '.join(arguments)}\n{run.stdout[-2000:]}\n{run.stderr[-4000:]}"
    assert "Traceback" not in run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the model ``qwen`` and the prepared data sets ``safety``, ``general`` and ``maths``."""
    safety, general, maths = need(*FILES)
    directory = tmp_path_factory.mktemp("chain")
    _make_qwen(directory / "qwen", [safety, general, maths])
    for source, name in ((safety, "safety"), (general, "general"), (maths, "maths")):
        extra = ["--task", "sft"] if name == "safety" else []
        limits = ["--tokenizer", "qwen", "--max-length", "256", "--num-samples", "48"]
        ogpsa(directory, "prepare-data", str(source), *extra, *limits, "--out", name)
    return directory


def _make_qwen(path: Path, sources: list[Path]) -> None:
    texts = []
    for source in sources:
        opener = gzip.open if source.suffix == ".gz" else open
        with opener(source, "rt", encoding="utf-8") as stream:  # type: ignore[operator]
            texts += [
                " ".join(map(str, json.loads(line).values())) for _, line in zip(range(600), stream, strict=False)
            ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=4000, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(path)


@pytest.mark.parametrize("stage", [2, 3])
def test_whole_chain(place: Path, stage: int) -> None:
    engine = ["--num-procs", "2", "--zero", str(stage), "--precision", "bf16", "--max-length", "256"]
    basis, run, results = f"basis{stage}", f"run{stage}", f"results{stage}"
    references = ["--reference", "general", "--reference", "maths", "--num-samples", "24"]
    ogpsa(place, "build-basis", "qwen", *references, *engine, "--out", basis)
    training = ["--max-steps", "6", "--refresh-every", "3", "--refresh-samples", "12", "--learning-rate", "1e-4"]
    sizes = ["--batch-size", "2", "--accumulation", "2", "--log-every", "1", "--gradient-checkpointing"]
    train = ["train-sft", "qwen", "--data", "safety", "--basis", basis, *engine, *training, *sizes, "--out", run]
    ogpsa(place, *train, "--space", "update")
    assert "up to date" in ogpsa(place, *train, "--space", "update")
    data = ["--data", "general", "--data", "maths", "--num-samples", "16"]
    ogpsa(place, "evaluate", run, "--suite", "reference-loss", *data, "--out", results)
    report = json.loads(ogpsa(place, "inspect", results, "--as-json"))
    assert report["kind"] == "results"
    assert report["problems"] == []

    lines = [json.loads(line) for line in (place / run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert all(0 < line["projection/removed"] <= 1 for line in steps)
    # Written back in fp32 master weights and measured there.
    assert max(abs(line[f"projection/leak/{name}"]) for line in steps for name in ("general", "maths")) <= 1e-4
    # Refreshed at the start, because fewer samples are asked for than the basis was built from, and every 3 steps.
    assert [line["step"] for line in steps if "projection/drift_degrees" in line] == [1, 4]

    model = AutoModelForCausalLM.from_pretrained(place / run / "model")
    tokenizer = AutoTokenizer.from_pretrained(place / run / "model")
    assert tokenizer.chat_template == CHATML
    before = load_file(place / "qwen" / "model.safetensors")
    after = dict(model.named_parameters())
    assert all(torch.isfinite(after[name]).all() for name in after)
    assert any(not torch.equal(before[name].bfloat16(), after[name].bfloat16()) for name in before if name in after)
