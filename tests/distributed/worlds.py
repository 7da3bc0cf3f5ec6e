"""Small models and data for runs that must agree, made from seeds on the spot."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_registry.testbed import MODEL_DIR
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.core.artifact import write_artifact
from pipelines.tokens.conversations import encode_dataset
from pipelines.tokens.pairs import encode_pairs
from pipelines.tokens.tokenizer import load_tokenizer


def make_model(path: Path, *, tied: bool = False, dropout: float = 0.0, seed: int = 0) -> Path:
    """A two-layer Llama over the testbed's tokenizer, in Hugging Face format."""
    tokenizer = load_tokenizer(MODEL_DIR)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        attention_dropout=dropout,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _random_text(rng: random.Random) -> Callable[[], str]:
    # Sorted: the tokenizer's order is another one in every process, and the seed would not decide the text.
    words = sorted(word for word in load_tokenizer(MODEL_DIR).get_vocab() if word.isalpha() and len(word) > 2)
    return lambda: " ".join(rng.choice(words) for _ in range(rng.randint(3, 11)))


def make_data(path: Path, num_rows: int, *, seed: int) -> Path:
    """A prepared data set of random word sequences of unequal lengths."""
    text = _random_text(random.Random(seed))
    rows = [
        {"messages": [{"role": "user", "content": text()}, {"role": "assistant", "content": text()}]}
        for _ in range(num_rows)
    ]
    with write_artifact(path, "dataset", PrepareDataConfig(source=f"random-{seed}", out=path), []) as writer:
        datasets.Dataset.from_list(rows).save_to_disk(str(writer.path))
        writer.summary["task"] = "sft"
    return path


def make_pairs(path: Path, num_rows: int, *, seed: int) -> Path:
    """A prepared preference data set of random word sequences of unequal lengths."""
    rng = random.Random(seed)
    text = _random_text(rng)
    rows = [
        {
            "prompt": [{"role": "user", "content": text()}],
            "chosen": [{"role": "assistant", "content": text()}],
            "rejected": [{"role": "assistant", "content": text()}],
        }
        for _ in range(num_rows)
    ]
    with write_artifact(path, "dataset", PrepareDataConfig(source=f"pairs-{seed}", out=path), []) as writer:
        datasets.Dataset.from_list(rows).save_to_disk(str(writer.path))
        writer.summary["task"] = "preference"
    return path


def encoded_pairs(path: Path, model: Path) -> list[dict[str, Any]]:
    """The rows of a prepared preference data set as tokens."""
    return encode_pairs(datasets.load_from_disk(str(path)), load_tokenizer(model), None, name="pairs")


def encoded(path: Path, model: Path) -> list[dict[str, Any]]:
    """The rows of a prepared data set as tokens and labels."""
    rows = encode_dataset(datasets.load_from_disk(str(path)), load_tokenizer(model), None).to_list()
    return [{key: list(map(int, row[key])) for key in ("input_ids", "labels")} for row in rows]
