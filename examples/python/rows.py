"""What the examples share: conversations as tokens, padded batches, and reference batches in the commands' order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor

Row = dict[str, list[int]]


def read(path: str | Path, tokenizer: Any) -> list[Row]:
    """The rows of a data set that ``ogpsa prepare-data`` wrote, as tokens; labels are -100 outside the answer."""
    return [encode(row["messages"], tokenizer) for row in datasets.load_from_disk(str(path))]


def encode(messages: list[dict[str, str]], tokenizer: Any) -> Row:
    """A conversation whose last message is the answer that is trained."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    # What the template puts behind the end of the turn is not trained.
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    end = len(tokenizer(text.rstrip(), add_special_tokens=False)["input_ids"])
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return {"input_ids": ids, "labels": [-100] * start + ids[start:end] + [-100] * (len(ids) - end)}


def pad(rows: list[Row], pad_token_id: int) -> dict[str, Tensor]:
    """A batch as the model takes it, padded on the right."""
    length = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": pad_token_id, "labels": -100}
    batch = {
        key: torch.tensor([row[key] + [value] * (length - len(row[key])) for row in rows])
        for key, value in fill.items()
    }
    sizes = torch.tensor([len(row["input_ids"]) for row in rows])
    return {**batch, "attention_mask": (torch.arange(length) < sizes[:, None]).long()}


def reference_batches(rows: list[Row], pad_token_id: int, *, size: int = 4, seed: int = 0) -> list[dict[str, Tensor]]:
    """Batches in the order of ``ogpsa build-basis``: drawn with its seed, the longest first, each filled up.

    None has more places, padding included, than ``size`` of the longest rows. Any other order gives the same rows of a
    basis up to rounding.
    """
    drawn = random.Random(seed).sample(rows, len(rows))
    drawn.sort(key=lambda row: len(row["input_ids"]), reverse=True)
    places, batches = size * len(drawn[0]["input_ids"]), []
    while drawn:
        number = max(size, places // len(drawn[0]["input_ids"]))
        batches.append(pad(drawn[:number], pad_token_id))
        drawn = drawn[number:]
    return batches
