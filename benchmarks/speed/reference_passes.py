"""Reference passes over rows as they are, against the plain manner: equally many rows a batch, the head everywhere.

    python -m benchmarks.speed.reference_passes --out benchmarks/speed/results

Rows are the excerpts of GSM8K and of HaluEval that come with the package, in tokens of a byte-pair vocabulary made
from them. The plain manner pads batches of equally many rows, longest first, and has the loss head compute at every
position; pairs go through the model both completions at a time, ordered by the chosen one. Both manners run by turns in
one process, on one thread, timed by the processor's clock. Results are compared, relative to the largest value.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.bench import line as lines
from benchmarks.bench.machine import describe
from pipelines.basis.objectives.tokens import TokenLoss, token_loss_sum
from pipelines.basis.references import ReferenceSet, objectives_for_rank
from pipelines.core.environment import package_versions
from pipelines.engine.shards.opening import open_shards
from pipelines.evaluation.suites import sample_losses as suite
from pipelines.passes import log_probs
from pipelines.passes.dealing import deal
from pipelines.passes.gradients import Objective, reference_gradients
from pipelines.tokens.padding import collate_pairs

COLUMNS = {"gsm8k": ("question", "answer"), "halueval": ("user_query", "chatgpt_response")}
SHAPES = {"tiny": (32, 1, 512), "2M": (128, 3, 8192), "6M": (128, 3, 49152), "17M": (512, 4, 8192)}
LONGEST = 1024

Values = Sequence[Tensor]


def texts(name: str) -> list[tuple[str, str]]:
    path = resources.files("data_registry") / "specs" / "excerpts" / f"{name}-train.jsonl.gz"
    records = map(json.loads, gzip.decompress(path.read_bytes()).decode().splitlines())
    return [(record[COLUMNS[name][0]], record[COLUMNS[name][1]]) for record in records]


def tokenised(count: int) -> dict[str, list[dict[str, list[int]]]]:
    """The first rows of each data set, answers labelled."""
    found = {name: texts(name) for name in COLUMNS}
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([text for rows in found.values() for row in rows for text in row], vocab_size=8192)
    samples: dict[str, list[dict[str, list[int]]]] = {}
    for name, rows in found.items():
        samples[name] = []
        for question, answer in rows[:count]:
            prompt, completion = (tokenizer.encode(text).ids for text in (f"user: {question}\n", answer))
            ids = [*prompt, *completion][:LONGEST]
            samples[name].append({"input_ids": ids, "labels": ([-100] * len(prompt) + completion)[:LONGEST]})
    return samples


def plain_objective(samples: Any, batch_size: int) -> Objective:
    loss = TokenLoss()
    parts = list(deal(samples, batch_size, length=loss.length, rank=0, world_size=1))
    batches = [loss.collate(part, 0) for part, _ in parts]
    return Objective("rows", batches, [1.0] * len(batches), float(ReferenceSet("rows", samples).num_units))


def gradients(model: Any, samples: Any, size: int, *, plain: bool) -> Values:
    if plain:
        objectives = [plain_objective(samples, size)]
    else:
        sets = [ReferenceSet("rows", samples)]
        objectives = objectives_for_rank(sets, batch_size=size, pad_token_id=0, rank=0, world_size=1)
    return reference_gradients(open_shards(model), model, token_loss_sum, objectives).rows


def pair_values(model: Any, samples: Any, size: int, *, plain: bool) -> Values:
    """Each question with its own answer, and with the next row's as the rejected one."""
    parts = [(s["input_ids"], next(i for i, label in enumerate(s["labels"]) if label != -100)) for s in samples]
    answers = [ids[first:] for ids, first in parts]
    pairs = [
        {"prompt_ids": ids[:first], "chosen_ids": ids[first:], "rejected_ids": answers[(i + 1) % len(answers)]}
        for i, (ids, first) in enumerate(parts)
    ]
    if not plain:
        return [torch.tensor(log_probs.completion_values(model, model, pairs, size, 0, torch.device("cpu")))]
    found = torch.zeros(len(pairs), 2)
    dealt = deal(range(len(pairs)), size, length=lambda i: len(pairs[i]["chosen_ids"]), rank=0, world_size=1)
    with torch.no_grad():
        for indices, _ in dealt:
            both = log_probs.completion_log_probs(model, collate_pairs([pairs[i] for i in indices], 0))
            found[indices] = torch.stack(both, 1)
    return [found]


def suite_losses(model: Any, samples: Any, size: int, *, plain: bool) -> Values:
    rows = [(sample["input_ids"], sample["labels"]) for sample in samples]
    if not plain:
        return [torch.tensor([loss.total for loss in suite.sample_losses(model, rows, batch_size=16 * size)])]
    whole = mock.patch.object(suite, "_head_can_be_narrowed", return_value=False)
    # No padding is too much.
    with whole, mock.patch.object(suite, "_PASS_IN_TOKENS", {"cpu": sys.maxsize}):
        return [torch.tensor([loss.total for loss in suite.sample_losses(model, rows, batch_size=16 * size)])]


PASSES: dict[str, Callable[..., Values]] = {
    "rows of a basis": gradients,
    "log-probabilities of pairs": pair_values,
    "losses of the suite": suite_losses,
}


def measure(shape: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    hidden, layers, vocabulary = SHAPES[shape]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=hidden * 11 // 4,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            tie_word_embeddings=True,
            max_position_embeddings=2 * LONGEST,
        )
    )
    log_probs.add_loss_head(model)
    results = []
    for name, samples in tokenised(arguments.samples).items():
        kept = [{key: [i % vocabulary if i >= 0 else i for i in ids] for key, ids in s.items()} for s in samples]
        for what, passes in PASSES.items():
            times: dict[str, list[float]] = {"plain": [], "ours": []}
            walls: dict[str, list[float]] = {"plain": [], "ours": []}
            values: dict[str, Values] = {}
            for repeat in range(arguments.repeats + 1):
                # Whoever is first in a round is second in the next.
                for manner in sorted(times, reverse=repeat % 2 == 0):
                    plain = manner == "plain"
                    narrowing = mock.patch.object(log_probs, "can_narrow", return_value=False)
                    begun, wall = time.process_time(), time.perf_counter()
                    if plain:
                        with narrowing:
                            values[manner] = passes(model, kept, arguments.batch_size, plain=True)
                    else:
                        values[manner] = passes(model, kept, arguments.batch_size, plain=False)
                    if repeat > 0:
                        times[manner].append(time.process_time() - begun)
                        walls[manner].append(time.perf_counter() - wall)
            both = zip(values["ours"], values["plain"], strict=True)
            off = [float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in both]
            results.append({
                "shape": shape, "data": name, "passes": what, "samples": len(kept),
                "tokens": sum(len(s["input_ids"]) for s in kept),
                "labelled": sum(label != -100 for s in kept for label in s["labels"]),
                "processor_s": times, "wall_s": walls,
                "largest_difference": max(off),
            })  # fmt: skip
            rates = [p / o for p, o in zip(times["plain"], times["ours"], strict=True)]
            print(f"{shape} {name}, {what}: {statistics.median(rates):.2f} times ({min(rates):.2f} to {max(rates):.2f})"
                  f", differing by {results[-1]['largest_difference']:.1e}", flush=True)  # fmt: skip
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["2M", "6M"])
    parser.add_argument("--samples", type=int, default=64, help="rows of each data set")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="directory for the raw results")
    lines.add_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = [result for shape in arguments.shapes for result in measure(shape, arguments)]
    table = [
        lines.line(
            f"{each['passes']}, {each['data']}, {each['shape']}",
            "all rows",
            "processor s",
            each["processor_s"]["ours"],
            peer=lines.Beside("padded, head everywhere", each["processor_s"]["plain"]),
        )
        for each in results
    ]
    lines.write(arguments.lines, table)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        date = datetime.now(UTC).date().isoformat()
        record = {"date": date, "machine": describe(), "packages": package_versions(), "results": results}
        (arguments.out / f"reference_passes-{date}.json").write_text(json.dumps(record, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
