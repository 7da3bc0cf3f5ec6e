"""How text is cut before its pieces become tokens; GGUF files name the manner, which transformers does not read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerBase

# The patterns that the tokenizers of these families state in their own tokenizer.json.
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS: Final = {
    "llama-bpe": _LETTERS + r"\p{N}{1,3}" + _REST,
    "llama-v3": _LETTERS + r"\p{N}{1,3}" + _REST,
    "llama3": _LETTERS + r"\p{N}{1,3}" + _REST,
    "qwen2": _LETTERS + r"\p{N}" + _REST,
}
_BYTES: Final = ("gpt-2", "phi-2", "jina-es", "jina-de", "mpt", "olmo", "trillion")
_DIGITS: Final = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
BYTE_LEVEL: Final = "gpt2"
"""The name that GGUF files have for byte-level BPE; other kinds of tokenizers cut no text beforehand."""


def splitter(name: str) -> PreTokenizer | None:
    """What cuts text in the manner that a GGUF file names.

    Args:
        name: the value of ``tokenizer.ggml.pre``, as llama.cpp defines it.

    Returns:
        the pre-tokenizer; None for a name that is not known here.
    """
    from tokenizers import Regex, pre_tokenizers

    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name in _BYTES:
        return by_bytes
    if name in _DIGITS:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), by_bytes])
    if name in _PATTERNS:
        pattern = pre_tokenizers.Split(Regex(_PATTERNS[name]), behavior="isolated", invert=False)
        return pre_tokenizers.Sequence([pattern, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return None


def set_splitting(tokenizer: PreTrainedTokenizerBase, kind: str, name: str | None) -> str | None:
    """Make a tokenizer cut text as the GGUF file says.

    Args:
        tokenizer: as transformers reads it from the file; changed in place.
        kind: the file's ``tokenizer.ggml.model``.
        name: its ``tokenizer.ggml.pre``; None if it has none.

    Returns:
        a remark if the manner is unknown, so that spaces and digits may be cut otherwise than in training; else None.
    """
    if kind != BYTE_LEVEL:
        return None
    found = None if name is None else splitter(name)
    if found is None:
        manner = "none" if name is None else f"'{name}'"
        return f"the file's manner of cutting text ({manner}) is not known; digits and spaces may be cut otherwise"
    tokenizer.backend_tokenizer.pre_tokenizer = found
    return None
