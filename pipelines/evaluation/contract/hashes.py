"""Hashes that tell unlike items, texts and tokenizers apart, for the settings of results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def hash_items(items: Iterable[Any]) -> str:
    """SHA-256 over JSON-ready items in order: equal for the same questions, whatever template they are put in."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item, ensure_ascii=False, sort_keys=True).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def hash_text(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of how a tokenizer splits text."""
    return hash_text(tokenizer.backend_tokenizer.to_str())
