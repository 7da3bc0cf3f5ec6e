"""What DPO needs in memory beside SFT, at the same number of tokens a step: each run in a process of its own.

    python -m benchmarks.speed.dpo_memory --out benchmarks/speed/results

Runs, interleaved and through the recipes: ``load`` trains nothing (the floor: libraries, weights, data); ``sft``;
``dpo`` with reference log-probabilities that are stored already; ``dpo-first``, which computes and stores them before
it trains; ``dpo-two-models``, TRL's loss with a reference model in memory, as without stored log-probabilities. An SFT
row has as many tokens as one side of a pair, and SFT takes twice as many rows as DPO takes pairs.

Peak memory is that of the process (VmHWM), and on a GPU that of torch's allocator, from the start of training on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench import line as lines

VARIANTS = ("load", "sft", "dpo", "dpo-first", "dpo-two-models")
SHAPES = {
    # name: (vocabulary, hidden size, layers)
    "30 M, vocabulary 8,192": (8192, 512, 7),
    "16 M, vocabulary 32,768": (32768, 224, 4),
}
# Sizes that only --shape asks for: to see that all works, and for a GPU.
OTHER_SHAPES = {"tiny": (8192, 64, 1), "0.5B": (32768, 1280, 20)}
STEPS = 3
# Freed blocks of 64 KiB and more go back to the system at once. By default the C library raises that limit as such
# blocks are freed, and what it keeps then differs from process to process.
ALLOCATION = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def make_world(directory: Path, shape: tuple[int, int, int], tokens: int, rows: int) -> None:
    """Write a model, and data in which every row and every side of a pair has exactly ``tokens`` tokens."""
    import random

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from data_registry.testbed import MODEL_DIR
    from pipelines.commands import prepare_data
    from pipelines.configs.prepare_data import PrepareDataConfig
    from pipelines.tokens.conversations import encode
    from pipelines.tokens.tokenizer import load_tokenizer

    vocabulary, hidden, layers = shape
    torch.manual_seed(0)
    tokenizer = load_tokenizer(MODEL_DIR)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=hidden * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory / "model")
    tokenizer.save_pretrained(directory / "model")
    rng = random.Random(0)
    words = [word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 2]
    one = [{"role": "user", "content": words[0]}, {"role": "assistant", "content": words[0]}]
    around = len(encode(one, tokenizer).input_ids) - 2

    def text(length: int) -> str:
        return " ".join(rng.choice(words) for _ in range(length))

    prompt = tokens // 2
    answer = tokens - prompt - around
    sft = [{"instruction": text(prompt), "output": text(answer)} for _ in range(2 * rows)]
    pairs = [{"prompt": text(prompt), "chosen": text(answer), "rejected": text(answer)} for _ in range(rows)]
    for name, content in (("sft", sft), ("pairs", pairs)):
        source = directory / f"{name}.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in content))
        prepare_data.run(PrepareDataConfig(source=str(source), out=directory / name))


def child(variant: str, directory: Path, pairs_per_step: int, tokens: int, precision: str) -> dict[str, float]:
    """Train in this process and return its peak memory."""
    import torch

    from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
    from pipelines.engine import processes
    from pipelines.models.reference import resolve_model
    from pipelines.training import dpo
    from pipelines.training import sft as train_sft

    device = processes.start()
    torch.set_num_threads(1)
    common: dict[str, Any] = {
        "model": str(directory / "model"), "out": directory / "runs" / variant, "precision": precision,
        "max_length": tokens, "max_steps": STEPS, "accumulation": 1,
    }  # fmt: skip
    config: Any
    if variant in ("load", "sft"):
        config = TrainSftConfig(data=directory / "sft", batch_size=2 * pairs_per_step, **common)
        recipe: Any = train_sft
    else:
        if variant == "dpo-first":
            # A fresh directory has no stored log-probabilities yet.
            common["out"] = Path(tempfile.mkdtemp(dir=directory)) / "run"
        config = TrainDpoConfig(data=directory / "pairs", batch_size=pairs_per_step, **common)
        recipe = dpo
    config.out.mkdir(parents=True, exist_ok=True)
    forget_peak()
    trainer = recipe.make_trainer(config, resolve_model(config.model), None, config.out, device)
    if variant == "dpo-two-models":
        _with_reference_model(trainer, config)
    if variant != "dpo-first":
        forget_peak()
    if variant != "load":
        trainer.train()
    shapes = {key: tuple(value.shape) for key, value in next(iter(trainer.get_train_dataloader())).items()}
    found = {"peak_bytes": float(peak()), "tokens_per_step": float(torch.Size(shapes["input_ids"]).numel())}
    if torch.cuda.is_available():
        found["gpu_peak_bytes"] = float(torch.cuda.max_memory_allocated())
    return found


def _with_reference_model(trainer: Any, config: Any) -> None:
    """Do what TRL does without stored log-probabilities: run a second, reference model at every step."""
    from pipelines.models.loading import load_training_model
    from pipelines.models.reference import resolve_model
    from pipelines.passes.log_probs import add_loss_head

    reference = load_training_model(config, resolve_model(config.model)).to(trainer.args.device).eval()
    for parameter in reference.parameters():
        parameter.requires_grad_(False)
    add_loss_head(reference)
    trainer.ref_model, trainer.precompute_ref_logps = reference, False


def forget_peak() -> None:
    """Reset the peaks, so that they are counted from here on."""
    import torch

    Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM here: this benchmark needs Linux")


def measure(name: str, directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    shape = (SHAPES | OTHER_SHAPES)[name]
    make_world(directory, shape, arguments.tokens, STEPS * arguments.pairs)
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for repeat in range(arguments.repeats + 1):
        # Round 0 only stores the reference log-probabilities.
        for variant in VARIANTS if repeat > 0 else ("dpo",):
            line = [sys.executable, "-m", "benchmarks.speed.dpo_memory", "--child", variant, "--world", str(directory)]
            line += ["--pairs", str(arguments.pairs), "--tokens", str(arguments.tokens)]
            line += ["--precision", arguments.precision]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **ALLOCATION}
            run = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
            if run.returncode:
                raise RuntimeError(f"{variant} failed:\n{run.stderr[-3000:]}")
            if repeat > 0:
                found[variant].append(json.loads(run.stdout.splitlines()[-1]))
    key = "gpu_peak_bytes" if "gpu_peak_bytes" in found["sft"][0] else "peak_bytes"
    peaks = {variant: [one[key] for one in runs] for variant, runs in found.items()}
    floor = statistics.median(peaks["load"])
    vocabulary, hidden, layers = shape
    return {
        "shape": {"vocabulary": vocabulary, "hidden": hidden, "layers": layers},
        "name": name,
        "measured": key,
        "tokens_per_step": {variant: runs[0]["tokens_per_step"] for variant, runs in found.items()},
        "peak_bytes": peaks,
        "ratio_to_sft": {variant: _spread(peaks[variant], peaks["sft"], 0.0) for variant in VARIANTS},
        # The stricter ratio: the memory of libraries, weights and data is the same for all and is subtracted.
        "ratio_to_sft_above_load": {variant: _spread(peaks[variant], peaks["sft"], floor) for variant in VARIANTS},
    }


def _spread(values: list[float], sft: list[float], floor: float) -> dict[str, float]:
    ratios = [(value - floor) / (one - floor) for value, one in zip(values, sft, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4, help="pairs a step; SFT takes twice as many rows")
    parser.add_argument("--tokens", type=int, default=256, help="of a row, and of a side of a pair")
    parser.add_argument("--shape", choices=[*SHAPES, *OTHER_SHAPES], default=None, help="one shape of the model alone")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None, help="directory for the raw results")
    parser.add_argument("--child", choices=VARIANTS, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--world", type=Path, default=None, help=argparse.SUPPRESS)
    lines.add_option(parser)
    arguments = parser.parse_args()
    if arguments.child is not None:
        found = child(arguments.child, arguments.world, arguments.pairs, arguments.tokens, arguments.precision)
        print(json.dumps(found))
        return
    results = []
    for name in [arguments.shape] if arguments.shape else SHAPES:
        with tempfile.TemporaryDirectory() as directory:
            results.append(measure(name, Path(directory), arguments))
    for result in results:
        print(f"{result['name']}, {arguments.precision}, {result['tokens_per_step']['sft']:.0f} tokens a step")
        for variant in VARIANTS:
            peak = statistics.median(result["peak_bytes"][variant]) / 2**20
            whole, above = (result[key][variant] for key in ("ratio_to_sft", "ratio_to_sft_above_load"))
            print(f"  {variant:15s} {peak:8.0f} MiB  {whole['median']:.3f} ({whole['min']:.3f} to {whole['max']:.3f}) "
                  f"of SFT's; above load {above['median']:.3f} ({above['min']:.3f} to {above['max']:.3f})")  # fmt: skip
    lines.write(arguments.lines, [each for result in results for each in table(result)])
    if arguments.out is not None:
        _write(arguments, results)


def table(result: dict[str, Any]) -> list[lines.Line]:
    """Peak memory of DPO beside SFT's on as many tokens, and beside what loading alone takes."""
    peaks = {variant: [value / 2**20 for value in values] for variant, values in result["peak_bytes"].items()}
    return [
        lines.line(
            f"DPO's memory, {result['name']}, {said}", "peak", "MiB", peaks[variant],
            peer=lines.Beside("SFT", peaks["sft"]), floor=lines.Beside("loading alone", peaks["load"]),
        )
        for variant, said in (("dpo", "stored log-probs"), ("dpo-first", "log-probs first"))
    ]  # fmt: skip


def _write(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    from pipelines.core.environment import package_versions

    date = datetime.now(UTC).date().isoformat()
    record = {
        "date": date,
        "command": "python -m benchmarks.speed.dpo_memory " + " ".join(sys.argv[1:]),
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()},
        "packages": package_versions(),
        "precision": arguments.precision,
        "pairs_per_step": arguments.pairs,
        "tokens": arguments.tokens,
        "steps": STEPS,
        "results": results,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"dpo_memory-{date}-{arguments.precision}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
