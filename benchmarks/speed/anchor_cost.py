"""What an anchor costs, in time and memory, beside naive SFT on as many rows: each run in a process of its own.

    python -m benchmarks.speed.anchor_cost --out benchmarks/speed/results

Runs, interleaved: ``load`` trains nothing (the floor of memory); ``naive`` trains on 12 rows a step; ``kl``, ``ce`` and
``hidden`` on 9 rows and 3 anchor rows (``--anchor-ratio 0.25``); ``prompt`` on 12 rows with ``--prompt-anchor 1``. All
rows have the same number of tokens, half of them answer. The floor of the ratios is 1: as many tokens go through the
model. Peak memory is that of the process (VmHWM), and on a GPU that of torch's allocator.
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
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench import line as lines
from benchmarks.speed.dpo_memory import ALLOCATION, OTHER_SHAPES, SHAPES, forget_peak, make_world, peak

ANCHORED = ("kl", "ce", "hidden")
VARIANTS = ("load", "naive", *ANCHORED, "prompt")
STEPS, WARM = 8, 2
ROWS, ANCHORS, KEPT = 12, 3, 64


def make_samples(directory: Path, tokens: int) -> None:
    """Samples whose rows are those of the training data, with what the model expected at their answers."""
    import torch
    from datasets import load_from_disk

    from data_registry.prepared import SAMPLES
    from pipelines.configs.sample import SampleConfig
    from pipelines.core.artifact import write_artifact
    from pipelines.models.loading import load_model
    from pipelines.models.reference import resolve_model
    from pipelines.passes.distributions import places_of, row_distributions
    from pipelines.samples.storage import Sample, write_log_probs, write_samples
    from pipelines.samples.tokens import training_tokens
    from pipelines.sampling.expectations import by_name
    from pipelines.tokens.tokenizer import load_source_tokenizer

    torch.set_num_threads(1)
    source = resolve_model(str(directory / "model"))
    rows = load_from_disk(str(directory / "sft")).select(range(ANCHORS * 3))
    samples = [Sample(row["messages"], number, 0, "end", 0) for number, row in enumerate(rows)]
    encoded = training_tokens(samples, load_source_tokenizer(source))
    model = load_model(source, precision="fp32").to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
    found = [row_distributions(model, [row], KEPT)[0] for row in encoded]
    config = SampleConfig(
        model=str(directory / "model"), data=directory / "sft", out=directory / "samples", log_probs=KEPT
    )
    following = [[ids[place + 1] for place in places_of(labels)] for ids, labels in encoded]
    with write_artifact(config.out, SAMPLES, config, []) as writer:
        write_samples(writer.path, samples)
        write_log_probs(writer.path, following, KEPT, lambda: map(by_name, found))
        writer.summary["task"] = "sft"


def child(variant: str, directory: Path, tokens: int, precision: str) -> dict[str, float]:
    """Train in this process; its peak memory, and the median time of a step."""
    import torch
    from transformers import TrainerCallback

    from pipelines.configs.train import TrainSftConfig
    from pipelines.engine import processes
    from pipelines.models.reference import resolve_model
    from pipelines.training import sft

    device = processes.start()
    torch.set_num_threads(1)
    options: dict[str, Any] = {"batch_size": ROWS}
    if variant == "prompt":
        options["prompt_anchor"] = 1.0
    if variant in ANCHORED:
        options = {"batch_size": ROWS - ANCHORS, "anchor": directory / "samples", "anchor_kind": variant}
    config = TrainSftConfig(
        model=str(directory / "model"), data=directory / "sft", out=directory / "runs" / variant, precision=precision,
        max_length=tokens, max_steps=STEPS, accumulation=1, epochs=100, **options,
    )  # fmt: skip
    config.out.mkdir(parents=True, exist_ok=True)
    trainer = sft.make_trainer(config, resolve_model(config.model), None, config.out, device)
    times: list[float] = []
    computed: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter())
            computed.append(time.process_time())

    trainer.add_callback(Clock())
    forget_peak()
    if variant != "load":
        trainer.train()
    found = {"peak_bytes": float(peak())}
    if torch.cuda.is_available():
        found["peak_bytes"] = float(torch.cuda.max_memory_allocated())
    if times:
        steps = [later - earlier for earlier, later in zip(times[WARM:], times[WARM + 1 :], strict=False)]
        found["step_s"] = statistics.median(steps)
        # Of one thread's computing time, which does not depend on what else the machine does.
        own = [later - earlier for earlier, later in zip(computed[WARM:], computed[WARM + 1 :], strict=False)]
        found["step_cpu_s"] = statistics.median(own)
    return found


def measure(name: str, directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    make_world(directory, (SHAPES | OTHER_SHAPES)[name], arguments.tokens, ROWS)
    make_samples(directory, arguments.tokens)
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(arguments.repeats):
        for variant in VARIANTS:
            line = [sys.executable, "-m", "benchmarks.speed.anchor_cost", "--child", variant, "--world", str(directory)]
            line += ["--tokens", str(arguments.tokens), "--precision", arguments.precision]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **ALLOCATION}
            run = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
            if run.returncode:
                raise RuntimeError(f"{variant} failed:\n{run.stderr[-3000:]}")
            found[variant].append(json.loads(run.stdout.splitlines()[-1]))
    naive, floor = found["naive"], statistics.median(one["peak_bytes"] for one in found["load"])
    return {
        "name": name,
        "raw": found,
        "step_ratio": {
            variant: _spread([run["step_s"] / one["step_s"] for run, one in zip(found[variant], naive, strict=True)])
            for variant in (*ANCHORED, "prompt")
        },
        "cpu_ratio": {
            variant: _spread(
                [run["step_cpu_s"] / one["step_cpu_s"] for run, one in zip(found[variant], naive, strict=True)]
            )
            for variant in (*ANCHORED, "prompt")
        },
        "memory_ratio": {
            variant: _spread([a["peak_bytes"] / b["peak_bytes"] for a, b in zip(found[variant], naive, strict=True)])
            for variant in (*ANCHORED, "prompt")
        },
        "memory_ratio_above_load": {
            variant: _spread(
                [
                    (a["peak_bytes"] - floor) / (b["peak_bytes"] - floor)
                    for a, b in zip(found[variant], naive, strict=True)
                ]
            )
            for variant in (*ANCHORED, "prompt")
        },
    }


def _spread(ratios: list[float]) -> dict[str, float]:
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256, help="of a row")
    parser.add_argument("--shape", choices=[*SHAPES, *OTHER_SHAPES], default=None, help="one shape of the model alone")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None, help="directory for the raw results")
    parser.add_argument("--child", choices=VARIANTS, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--world", type=Path, default=None, help=argparse.SUPPRESS)
    lines.add_option(parser)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(child(arguments.child, arguments.world, arguments.tokens, arguments.precision)))
        return
    results = []
    for name in [arguments.shape] if arguments.shape else SHAPES:
        with tempfile.TemporaryDirectory() as directory:
            results.append(measure(name, Path(directory), arguments))
        for kind in ("step_ratio", "cpu_ratio", "memory_ratio", "memory_ratio_above_load"):
            for variant, value in results[-1][kind].items():
                print(f"{name}: {kind} of {variant}: {value['median']:.3f} ({value['min']:.3f} to {value['max']:.3f})")
    lines.write(arguments.lines, [each for result in results for each in table(result)])
    if arguments.out is not None:
        _write(arguments, results)


def table(result: dict[str, Any]) -> list[lines.Line]:
    """Time of a step and peak memory with each anchor, beside naive training on as many rows, which is the floor."""
    raw = result["raw"]
    found = []
    for variant in (*ANCHORED, "prompt"):
        for figure, key, unit, scale in (("a step", "step_s", "s", 1.0), ("peak memory", "peak_bytes", "MiB", 2.0**20)):
            ours, naive = ([run[key] / scale for run in raw[which]] for which in (variant, "naive"))
            floor = lines.Beside("as many rows without", naive)
            found.append(lines.line(f"anchor {variant}, {result['name']}", figure, unit, ours, floor=floor))
    return found


def _write(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    from pipelines.core.environment import package_versions

    date = datetime.now(UTC).date().isoformat()
    record = {
        "date": date,
        "command": "python -m benchmarks.speed.anchor_cost " + " ".join(sys.argv[1:]),
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()},
        "packages": package_versions(),
        "precision": arguments.precision,
        "tokens": arguments.tokens,
        "rows": {"a step": ROWS, "of the anchor": ANCHORS},
        "results": results,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"anchor_cost-{date}-{arguments.precision}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
