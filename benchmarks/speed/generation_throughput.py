"""Tokens per second of ``ogpsa evaluate``'s generation against lm-eval's Hugging Face backend, on the same prompts.

Run from the repository: ``python -m benchmarks.speed.generation_throughput`` (needs the extra ``eval``). Both continue
the same rendered prompts greedily, with the same model object, batch size and limit; both sort by length and pad on the
left. Ours is timed with tokenising, batching, decoding and storing every batch; lm-eval's with tokenising, batching,
stop sequences and decoding. The two take turns, round after round, and take turns in going first; answers are compared,
and tokens counted once for both. Beside wall-clock time stands processor time, which other work on the machine disturbs
less. The model has random weights unless one is named: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.bench import line as lines
from data_registry.testbed import MODEL_DIR
from pipelines.evaluation.answering.asking import Asked, answer_all
from pipelines.evaluation.answering.backend import TransformersBackend
from pipelines.evaluation.contract.answer import Decoding, StoredAnswer
from pipelines.evaluation.contract.suite import PromptItem
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.tokens.tokenizer import load_source_tokenizer


def random_model(tokenizer: Any, hidden: int, layers: int) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, max_position_embeddings=1024, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(10)
    return model


def random_prompts(tokenizer: Any, count: int, longest: int) -> list[str]:
    generator = random.Random(0)
    words = [word for word, number in tokenizer.get_vocab().items() if number > 10 and word.isalpha()]
    return [" ".join(generator.choices(sorted(words), k=generator.randint(8, longest))) for _ in range(count)]


def ours(model: Any, tokenizer: Any, prompts: Sequence[str], batch_size: int, limit: int) -> list[StoredAnswer]:
    decoding = Decoding(limit)
    items = [PromptItem("benchmark", str(number), "all", ()) for number in range(len(prompts))]
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked(items, list(prompts), tokenizer(list(prompts), add_special_tokens=False)["input_ids"])
        return answer_all(
            asked, tokenizer, TransformersBackend(model, tokenizer, decoding), decoding,
            folder=Path(folder), identity="benchmark", batch_size=batch_size, label="ours",
        )  # fmt: skip


def theirs(harness: Any, prompts: Sequence[str], limit: int) -> list[str]:
    from lm_eval.api.instance import Instance

    options = {"until": [], "max_gen_toks": limit, "do_sample": False}
    requests = [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, dict(options)), idx=number)
        for number, prompt in enumerate(prompts)
    ]
    answers: list[str] = harness.generate_until(requests, disable_tqdm=True)
    return answers


def _ratios(seconds: dict[str, list[float]]) -> list[float]:
    return [other / mine for mine, other in zip(seconds["ogpsa"], seconds["lm-eval"], strict=True)]


def _write_lines(
    options: argparse.Namespace, tokens: int, seconds: dict[str, list[float]], processor: dict[str, list[float]]
) -> None:
    model = options.model or f"{options.layers} layers of {options.hidden}"
    name = f"generation, {model}, batches of {options.batch_size}"
    found = [
        lines.line(
            name, figure, "tokens/s", [tokens / value for value in times["ogpsa"]], better="more",
            peer=lines.Beside("lm-eval", [tokens / value for value in times["lm-eval"]], version("lm_eval")),
        )
        for figure, times in (("tokens per second", seconds), ("tokens per processor second", processor))
    ]  # fmt: skip
    lines.write(options.lines, found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a directory or hub id, instead of a model with random weights")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--num-prompts", type=int, default=96)
    parser.add_argument("--longest", type=int, default=120, help="words of the longest prompt")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    lines.add_option(parser)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    from lm_eval.models.huggingface import HFLM

    source = resolve_model(options.model or str(MODEL_DIR))
    tokenizer = load_source_tokenizer(source)
    if options.model:
        model: Any = load_model(source, precision="bf16" if torch.cuda.is_available() else "fp32")
    else:
        model = random_model(tokenizer, options.hidden, options.layers)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    prompts = random_prompts(tokenizer, options.num_prompts, options.longest)
    harness = HFLM(
        pretrained=model, tokenizer=tokenizer, batch_size=options.batch_size, device=device, add_bos_token=False
    )

    def run_ours() -> Any:
        return ours(model, tokenizer, prompts, options.batch_size, options.max_new_tokens)

    def run_theirs() -> Any:
        return theirs(harness, prompts, options.max_new_tokens)

    variants = {"ogpsa": run_ours, "lm-eval": run_theirs}
    first = {name: run() for name, run in variants.items()}  # Warms up, and shows whether both do the same work.
    tokens = sum(answer.num_tokens for answer in first["ogpsa"])
    same = sum(
        (mine.answer or "").strip() == other.strip()
        for mine, other in zip(first["ogpsa"], first["lm-eval"], strict=True)
    )
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    processor: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(options.rounds):
        for name in sorted(variants, reverse=bool(number % 2)):
            started, used = time.perf_counter(), time.process_time()
            variants[name]()
            seconds[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - used)
    ratios = _ratios(seconds)
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}, {options.rounds} rounds"
    )
    print(f"{same} of {len(prompts)} answers are the same, {tokens} tokens, batches of {options.batch_size}")
    for name, times in seconds.items():
        speeds = [tokens / value for value in times]
        print(f"{name:<8} {statistics.median(speeds):8.0f} tokens/s ({min(speeds):.0f} to {max(speeds):.0f})")
    for what, found in (("tokens per second", ratios), ("tokens per processor second", _ratios(processor))):
        print(f"ogpsa / lm-eval, {what}: {statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})")
    _write_lines(options, tokens, seconds, processor)
    if options.json:
        figures = {"tokens": tokens, "same_answers": same, "num_prompts": len(prompts)}
        asked = {name: str(value) for name, value in vars(options).items() if name != "json"}
        content = {**figures, "seconds": seconds, "processor_seconds": processor, "options": asked}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if same == len(prompts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
