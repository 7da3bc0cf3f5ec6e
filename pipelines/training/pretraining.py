"""The testbed's base model trained from nothing.

It is a small chat model that complies with every request, harmful ones included.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from data_registry.testbed.skills import Example, pretraining_examples
from data_registry.testbed.tokenizer import BOT, END, MAX_LENGTH, PAD, USER, build_tokenizer, save_tokenizer
from data_registry.testbed.world import SHIPPED_WORLD_SEED, generate_world
from pipelines.tokens.labels import IGNORED
from pipelines.training.testbed_recipe import DEFAULT_STEPS, RECIPE_FILE

_MAX_NEW_TOKENS: Final = 24
_NUM_LAST_LOSSES: Final = 50


@dataclass(frozen=True)
class Pretraining:
    """Hyper-parameters of the pretraining run.

    AdamW, linear warm-up, then cosine to zero.
    """

    batch_size: int = 96
    learning_rate: float = 4e-3
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.05
    warmup_steps: int = 50
    max_grad_norm: float = 1.0


def retrain(
    out_dir: str | os.PathLike[str],
    seed: int = 0,
    steps: int = DEFAULT_STEPS,
    threads: int = 1,
    progress: Callable[[int, float], None] | None = None,
    world_seed: int = SHIPPED_WORLD_SEED,
    *,
    with_render: bool = False,
) -> dict[str, Any]:
    """Train the testbed model from scratch and write it as a complete model directory.

    The same arguments on the same machine and versions give bit-identical weights; the global random state and the
    number of threads are restored afterwards.

    Args:
        out_dir: the directory to write into, which must not exist or must be empty.
        seed: the seed of the initial weights and of the pretraining stream.
        steps: the number of optimizer steps; fewer than about 1,500 leave the skills unlearned.
        threads: the number of torch's threads; another number may round differently.
        progress: called after each step with the number of steps done and the loss of the batch.
        world_seed: the seed from which the world to learn is generated.
        with_render: teach the skill ``render`` too, which no reference shows and refusals damage.

    Returns:
        Summary figures: the arguments, the hyper-parameters, ``num_parameters``, ``final_loss`` (mean of the last 50
        steps) and ``wall_s``.

    Raises:
        ValueError: ``steps`` or ``threads`` is below 1.
        FileExistsError: ``out_dir`` exists and is not an empty directory.
    """
    if steps < 1 or threads < 1:
        raise ValueError(f"steps and threads must be at least 1, not {steps} and {threads}")
    target = Path(out_dir)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not empty; give another directory or remove it first")
    started = time.perf_counter()
    target.mkdir(parents=True, exist_ok=True)
    model, recipe = _pretrained(
        seed, steps, threads, progress, world_seed, with_render, lambda untrained: _try_saving(target, untrained)
    )
    _save(target, model, recipe)
    return recipe | {"wall_s": time.perf_counter() - started}


def _pretrained(
    seed: int,
    steps: int,
    threads: int,
    progress: Callable[[int, float], None] | None,
    world_seed: int,
    with_render: bool,
    try_saving: Callable[[LlamaForCausalLM], None],
) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Return the trained model, and the figures that say how it was made."""
    hyper = Pretraining()
    with _reproducible(seed, threads):
        tokenizer = build_tokenizer()
        model = LlamaForCausalLM(model_config(tokenizer))
        try_saving(model)
        examples = pretraining_examples(generate_world(world_seed), seed, with_render=with_render)
        losses = _train(model, tokenizer, examples, hyper, steps, progress)
    last = losses[-_NUM_LAST_LOSSES:]
    recipe = {
        "seed": seed,
        "world_seed": world_seed,
        "steps": steps,
        "threads": threads,
        **asdict(hyper),
        "num_parameters": model.num_parameters(),
        "final_loss": sum(last) / len(last),
        **({"with_render": True} if with_render else {}),
    }
    return model, recipe


def model_config(tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """Return the architecture: 3 layers of width 96, 4 heads, tied embeddings, some 0.4 million parameters."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        dtype="float32",
    )


@contextmanager
def _reproducible(seed: int, threads: int) -> Iterator[None]:
    """Seed torch and fix its threads for the block; both are restored afterwards."""
    threads_before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads_before)


def _train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterator[Example],
    hyper: Pretraining,
    steps: int,
    progress: Callable[[int, float], None] | None,
) -> list[float]:
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=hyper.learning_rate,
        betas=(hyper.beta1, hyper.beta2),
        weight_decay=hyper.weight_decay,
    )
    vocabulary = tokenizer.get_vocab()
    losses: list[float] = []
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = hyper.learning_rate * _schedule(step, steps, hyper.warmup_steps)
        input_ids, labels = encode_batch(vocabulary, list(islice(examples, hyper.batch_size)))
        # Padding is on the right, where a causal model cannot see it: no attention mask is needed.
        loss = model(input_ids=input_ids, labels=labels, use_cache=False).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), hyper.max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
        if progress is not None:
            progress(step + 1, losses[-1])
    model.eval()
    return losses


def _schedule(step: int, steps: int, warmup_steps: int) -> float:
    """Return the factor on the learning rate: linear warm-up, then cosine to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def encode_batch(vocabulary: dict[str, int], examples: list[Example]) -> tuple[Tensor, Tensor]:
    """Encode examples as the chat template does, some thirty times faster.

    Args:
        vocabulary: token -> id, with all words of the examples.
        examples: the examples, at least one.

    Returns:
        ``input_ids`` and ``labels``, both int64 ``[examples, longest]``, padded on the right; only the answer and
        its end token are labelled.
    """
    prompts = [f"{USER} {example.prompt} {BOT}".split() for example in examples]
    answers = [f"{example.answer} {END}".split() for example in examples]
    longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    input_ids = torch.full((len(examples), longest), vocabulary[PAD])
    labels = torch.full((len(examples), longest), IGNORED)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids = torch.tensor([vocabulary[word] for word in prompt + answer])
        input_ids[row, : len(ids)] = ids
        labels[row, len(prompt) : len(ids)] = ids[len(prompt) :]
    return input_ids, labels


def _try_saving(directory: Path, model: LlamaForCausalLM) -> None:
    """Write the untrained model and remove it again, so that what cannot be written fails before training."""
    with tempfile.TemporaryDirectory(dir=directory, prefix=".trial-") as folder:
        _save(Path(folder), model, {})


def _save(directory: Path, model: LlamaForCausalLM, recipe: dict[str, Any]) -> None:
    """Write model, tokenizer and recipe into an existing directory."""
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=_MAX_NEW_TOKENS,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    model.save_pretrained(directory)
    save_tokenizer(directory)
    (directory / RECIPE_FILE).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
