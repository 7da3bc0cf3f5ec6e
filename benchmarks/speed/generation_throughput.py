"""Tokens per second of ``ogpsa evaluate``'s generation against lm-eval's Hugging Face backend, on the same prompts.

Run from the repository: ``python -m benchmarks.speed.generation_throughput`` (needs the extra ``eval``). Both continue
the same rendered prompts greedily, with the same model object, batch size and limit. Ours is timed with tokenising,
answering, decoding and storing; lm-eval's with tokenising, batching, stop sequences and decoding. A floor stands beside
them: passes of full batches without padding for as many tokens. All take turns, round after round, and take turns in
going first; answers are compared, and tokens counted once for all. Beside wall-clock time stands processor time, which
other work on the machine disturbs less. The model has random weights unless one is named: speed does not depend on
them, and with ``--answers`` other than ``limit`` it counts down, so that the lengths of answers are known.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.bench import line as lines
from benchmarks.speed.generation_workloads import (
    KINDS,
    LONGEST,
    Workload,
    count_down,
    plain_words,
    random_model,
    workload,
)
from data_registry.testbed import MODEL_DIR
from pipelines.evaluation.answering.asking import Asked, answer_all
from pipelines.evaluation.answering.backend import TransformersBackend
from pipelines.evaluation.answering.row_cache import RowCache
from pipelines.evaluation.contract.answer import Decoding, StoredAnswer
from pipelines.evaluation.contract.suite import PromptItem
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.tokens.tokenizer import load_source_tokenizer


def ours(
    model: Any, tokenizer: Any, prompts: Sequence[str], batch_size: int, limit: int
) -> tuple[list[StoredAnswer], int]:
    """The answers, and most bytes of keys and values at a time."""
    decoding = Decoding(limit)
    items = [PromptItem("benchmark", str(number), "all", ()) for number in range(len(prompts))]
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked(items, list(prompts), tokenizer(list(prompts), add_special_tokens=False)["input_ids"])
        backend = TransformersBackend(model, tokenizer, decoding)
        answers = answer_all(
            asked, tokenizer, backend, decoding,
            folder=Path(folder), identity="benchmark", batch_size=batch_size, label="ours",
        )  # fmt: skip
    return answers, backend.peak_bytes


def theirs(harness: Any, prompts: Sequence[str], limit: int) -> list[str]:
    from lm_eval.api.instance import Instance

    options = {"until": [], "max_gen_toks": limit, "do_sample": False}
    requests = [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, dict(options)), idx=number)
        for number, prompt in enumerate(prompts)
    ]
    answers: list[str] = harness.generate_until(requests, disable_tqdm=True)
    return answers


def floor(model: Any, prompts: Sequence[Sequence[int]], tokens: int, batch_size: int) -> None:
    """Passes of full batches without padding, for as many tokens as were asked and made: less work does not do.

    Args:
        model: the model.
        prompts: the prompts in tokens; what they share from the start counts once, as do repetitions.
        tokens: how many were made.
        batch_size: rows of a pass.
    """
    different = sorted(set(map(tuple, prompts)))
    # What the first and the last of sorted prompts share is shared by all.
    alike = [one == other for one, other in zip(different[0], different[-1], strict=False)]
    start = (alike.index(False) if False in alike else 0) if len(different) > 1 else 0
    rests = sum(map(len, different)) - start * len(different)
    length = max(1, rests // len(different))
    mean = start + length + tokens // len(prompts) // 2
    device, config = model.device, model.config

    def forward(rows: int, columns: int, cache: DynamicCache) -> DynamicCache:
        ids = torch.ones((rows, columns), dtype=torch.int64, device=device)
        model(ids, past_key_values=cache, logits_to_keep=1)
        return cache

    with torch.inference_mode():
        shared = forward(1, max(start, 1), DynamicCache(config=config))
        layers = [(layer.keys.expand(batch_size, -1, -1, -1), layer.values.expand(batch_size, -1, -1, -1))
                  for layer in shared.layers]  # fmt: skip
        for _ in range(round(rests / length / batch_size)):
            forward(batch_size, length, DynamicCache(layers if start else None, config=config))
        # Columns of zeros cost what others do, and each token is written over the one before.
        rows = RowCache(batch_size, shared)
        rows.admit(shared, [0] * batch_size, [1] * batch_size)
        for _ in range(mean - 1):
            rows.before_token(device)
            rows.after_token()
        rows.before_token(device)
        for _ in range(round(tokens / batch_size)):
            forward(batch_size, 1, rows)


def _peak(model: Any, run: Callable[[], Any]) -> int:
    """Most bytes of keys and values in the caches of transformers that a model is handed meanwhile."""
    peak = 0

    def look(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        nonlocal peak
        layers = kwargs["past_key_values"].layers
        peak = max(peak, sum(layer.keys.nbytes + layer.values.nbytes for layer in layers if layer.keys is not None))

    hook = model.register_forward_hook(look, with_kwargs=True)
    run()
    hook.remove()
    return peak


def _write_lines(
    options: argparse.Namespace, tokens: int, seconds: dict[str, list[float]], processor: dict[str, list[float]]
) -> None:
    model = options.model or f"{options.layers} layers of {options.hidden}"
    kind = "" if options.answers == "limit" else f" {options.answers},"
    name = f"generation,{kind} {model}, batches of {options.batch_size}"
    found = [
        lines.line(
            name, figure, "tokens/s", [tokens / value for value in times["ogpsa"]], better="more",
            peer=lines.Beside("lm-eval", [tokens / value for value in times["lm-eval"]], version("lm_eval")),
            floor=lines.Beside("full batches", [tokens / value for value in times["floor"]]),
        )
        for figure, times in (("tokens per second", seconds), ("tokens per processor second", processor))
    ]  # fmt: skip
    lines.write(options.lines, found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", choices=KINDS, default="limit", help="; ".join(map(": ".join, KINDS.items())))
    parser.add_argument("--model", help="a directory or hub id, instead of a model with random weights")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--num-prompts", type=int, default=96)
    parser.add_argument("--longest", type=int, default=120, help="words of the longest prompt")
    parser.add_argument("--start", type=int, default=200, help="words of the common start")
    parser.add_argument("--per-prompt", type=int, default=8, help="answers to each prompt, with --answers samples")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    lines.add_option(parser)
    return parser.parse_args()


def _open(options: argparse.Namespace, device: str) -> tuple[Any, Any, Workload]:
    """The model on its device, its tokenizer, and what it is asked."""
    tokenizer = load_source_tokenizer(source := resolve_model(options.model or str(MODEL_DIR)))
    words = plain_words(tokenizer)[: LONGEST - 1] if options.answers != "limit" else []
    if options.model:
        model: Any = load_model(source, precision="bf16" if device == "cuda" else "fp32")
        if words:
            count_down(model, tokenizer, words)
    else:
        model = random_model(tokenizer, options.hidden, options.layers, words)
    work = workload(
        options.answers, tokenizer, count=options.num_prompts, longest=options.longest, limit=options.max_new_tokens,
        start=options.start, per_prompt=options.per_prompt,
    )  # fmt: skip
    return model.to(device).eval(), tokenizer, work


def _show(seconds: dict[str, list[float]], processor: dict[str, list[float]], tokens: int) -> None:
    for name, times in seconds.items():
        speeds = [tokens / value for value in times]
        print(f"{name:<8} {statistics.median(speeds):8.0f} tokens/s ({min(speeds):.0f} to {max(speeds):.0f})")
    for other in ("lm-eval", "floor"):
        for what, times in (("second", seconds), ("processor second", processor)):
            found = [theirs / mine for mine, theirs in zip(times["ogpsa"], times[other], strict=True)]
            low, high = min(found), max(found)
            print(f"ogpsa / {other}, tokens per {what}: {statistics.median(found):.3f} ({low:.3f} to {high:.3f})")


def main() -> int:
    """Run the benchmark; 1 where the two sides do not give the same answers."""
    options = _options()
    logging.disable(logging.WARNING)
    from lm_eval.models.huggingface import HFLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Small passes gain little from more threads, whose waiting counts as processor time.
    torch.set_num_threads(1)
    model, tokenizer, work = _open(options, device)
    harness = HFLM(
        pretrained=model, tokenizer=tokenizer, batch_size=options.batch_size, device=device, add_bos_token=False
    )
    first, held = ours(model, tokenizer, work.prompts, options.batch_size, work.limit)
    others: list[str] = []
    held_there = _peak(model, lambda: others.extend(theirs(harness, work.prompts, work.limit)))
    tokens = sum(answer.num_tokens for answer in first)
    lengths = sorted(answer.num_tokens for answer in first)
    same = sum((mine.answer or "").strip() == other.strip() for mine, other in zip(first, others, strict=True))
    prompts = tokenizer(work.prompts, add_special_tokens=False)["input_ids"]
    variants: dict[str, Callable[[], Any]] = {
        "ogpsa": lambda: ours(model, tokenizer, work.prompts, options.batch_size, work.limit),
        "lm-eval": lambda: theirs(harness, work.prompts, work.limit),
        "floor": lambda: floor(model, prompts, tokens, options.batch_size),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    processor: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(options.rounds):
        for name in sorted(variants, reverse=bool(number % 2)):
            started, used = time.perf_counter(), time.process_time()
            variants[name]()
            seconds[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - used)
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}, "
        f"torch {torch.__version__}, {options.rounds} rounds"
    )
    print(
        f"{KINDS[options.answers]}: {same} of {len(work.prompts)} answers are the same, {tokens} tokens (median "
        f"{statistics.median(lengths):g}, longest {lengths[-1]}), batches of {options.batch_size}"
    )
    print(f"keys and values: at most {held / 2**20:.1f} MiB, lm-eval's {held_there / 2**20:.1f} MiB")
    _show(seconds, processor, tokens)
    _write_lines(options, tokens, seconds, processor)
    if options.json:
        figures = {"tokens": tokens, "same_answers": same, "num_prompts": len(work.prompts), "lengths": lengths}
        memory = {"cache_bytes": {"ogpsa": held, "lm-eval": held_there}, "threads": torch.get_num_threads()}
        asked = {name: str(value) for name, value in vars(options).items() if name != "json"}
        content = {**figures, **memory, "seconds": seconds, "processor_seconds": processor, "options": asked}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if same == len(work.prompts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
