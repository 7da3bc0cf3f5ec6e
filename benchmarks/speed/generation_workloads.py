"""What is asked in the benchmark of generation, and models whose answers have lengths that are known beforehand.

A model with random weights counts down: after the word of a length it says the word of the length below, and at last
the end of turn. Its forward pass is otherwise that of any model, and so are the answers that both sides get from it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

MEDIAN, LONGEST = 20, 200
KINDS = {
    "limit": "answers that all go to the limit",
    "mixed": f"answers of mixed length: median {MEDIAN}, longest {LONGEST} tokens",
    "shared": "answers of one length to prompts with a common start",
    "samples": "several answers to each prompt, of mixed length",
}


@dataclass(frozen=True)
class Workload:
    """Prompts, and the longest answer.

    Attributes:
        prompts: the prompts as texts.
        limit: the longest answer, in tokens.
    """

    prompts: list[str]
    limit: int


def random_model(tokenizer: Any, hidden: int, layers: int, words: Sequence[str] = ()) -> Any:
    """A model with random weights.

    Args:
        tokenizer: its tokenizer.
        hidden: the size of its hidden states; heads have 64 numbers.
        layers: the number of its layers.
        words: the words that it counts down by; none for a model that says anything.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, max_position_embeddings=2048, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(10)
    if words:
        count_down(model, tokenizer, words)
    return model


def count_down(model: Any, tokenizer: Any, words: Sequence[str]) -> None:
    """Let a model say after each word the one before it in a list, and after the first the end of turn."""
    next_V = torch.arange(len(tokenizer))
    ids = [tokenizer.get_vocab()[word] for word in words]
    next_V[ids] = torch.tensor([tokenizer.eos_token_id, *ids[:-1]])

    def follow(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        ids_BL: Tensor = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        kept = output.logits.shape[1]
        output.logits.scatter_(2, next_V.to(ids_BL.device)[ids_BL[:, -kept:, None]], 1e4)

    model.register_forward_hook(follow, with_kwargs=True)


def plain_words(tokenizer: Any) -> list[str]:
    """Words that are one token each."""
    return sorted(word for word, number in tokenizer.get_vocab().items() if number > 10 and word.isalpha())


def workload(
    kind: str, tokenizer: Any, *, count: int, longest: int, limit: int, start: int, per_prompt: int
) -> Workload:
    """The prompts of one kind of :data:`KINDS`.

    Args:
        kind: the kind.
        tokenizer: the tokenizer, whose words they are made of.
        count: the number of prompts.
        longest: words of the longest prompt, beside the common start.
        limit: the longest answer where it is not :data:`LONGEST`.
        start: words of the common start.
        per_prompt: answers to each prompt of the kind ``samples``.
    """
    generator = random.Random(0)
    words = plain_words(tokenizer)

    def text(length: int) -> str:
        return " ".join(generator.choices(words, k=length))

    if kind == "limit":
        return Workload([text(generator.randint(8, longest)) for _ in range(count)], limit)
    if kind == "shared":
        common = text(start)
        ends = words[limit - 2]
        return Workload([f"{common} {text(generator.randint(8, longest))} {ends}" for _ in range(count)], limit)
    times = per_prompt if kind == "samples" else 1
    lengths = mixed_lengths(count // times)
    generator.shuffle(lengths)
    # An answer of so many tokens has the words below the last one of its prompt, and the end of turn.
    prompts = [f"{text(generator.randint(8, longest))} {words[length - 2]}" for length in lengths]
    return Workload([prompt for prompt in prompts for _ in range(times)], LONGEST)


def mixed_lengths(count: int) -> list[int]:
    """Lengths of a log-normal distribution, at even steps of it, of which the longest has :data:`LONGEST` tokens."""
    scores = [NormalDist().inv_cdf((index + 0.5) / count) for index in range(count)]
    return [max(2, round(MEDIAN * (LONGEST / MEDIAN) ** (score / scores[-1]))) for score in scores]
