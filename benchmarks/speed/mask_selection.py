"""Speed and memory of choosing weights for a mask from a checkpoint of real size, beside reading its files alone.

    python -m benchmarks.speed.mask_selection --parameters 1e9 --out benchmarks/speed/results

A checkpoint of large matrices is written first; its files then lie in the page cache, where reading is as fast as it
can be. Reading alone (the same blocks, by the same threads, each copied) and choosing with the mask written take
turns, each in a process of its own. Choosing reads all files three times; its speed counts the bytes of all three
passes. Memory is the growth of a process's peak over what it had after its imports, without the pages of mapped files.
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
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import line as lines

HIDDEN, FFN = 2048, 8192
SCORES = ("change", "magnitude", "random")


def shapes(parameters: int) -> dict[str, tuple[int, ...]]:
    """Matrices of so many weights in all, at least."""
    found: dict[str, tuple[int, ...]] = {}
    layer, total = 0, 0
    while total < parameters:
        for name, shape in (("attn", (HIDDEN, HIDDEN)), ("up", (FFN, HIDDEN)), ("down", (HIDDEN, FFN))):
            found[f"model.layers.{layer}.{name}.weight"] = shape
            total += shape[0] * shape[1]
        layer += 1
    return found


def write(root: Path, parameters: int) -> None:
    """A model as it is stored, and the change that a warm-up run would have tracked, both float32."""
    from pipelines.weights.writing import MAX_FILE_BYTES, MODEL, Layout, PlannedTensor, ShardedFiles

    generator = torch.Generator().manual_seed(0)
    for name, layout in (("model", MODEL), ("change", Layout("change"))):
        (root / name).mkdir()
        plan = [PlannedTensor(key, torch.float32, shape) for key, shape in shapes(parameters).items()]
        if name == "change":
            plan = [PlannedTensor(each.name, torch.float32, (1, each.num_bytes // 4)) for each in plan]
        with ShardedFiles(root / name, plan, MAX_FILE_BYTES, layout) as files:
            for each in plan:
                files.begin(each.name, torch.float32, each.shape)
                left = each.num_bytes // 4
                while left:
                    count = min(left, 1 << 22)
                    files.write(torch.randn(count, generator=generator) * 1e-3)
                    left -= count
    (root / "model" / "config.json").write_text(json.dumps({"model_type": "synthetic"}))


def measure(which: str, score: str, root: Path, workers: int) -> dict[str, Any]:
    """Read, or choose and write, in this process."""
    from pipelines.masks.parameters import Parameter
    from pipelines.masks.scores import Magnitude, Random, Rows, Scores
    from pipelines.masks.selecting import Choice
    from pipelines.masks.writing import OtherMasks, selection_of, write_bits
    from pipelines.models.reference import resolve_model
    from pipelines.weights.read_ahead import read_ahead
    from pipelines.weights.stored import open_checkpoint

    torch.set_num_threads(1)
    checkpoint = open_checkpoint(resolve_model(str(root / "model")))
    parameters = [Parameter(stored.name, stored.shape) for stored in checkpoint.stored.values()]
    kinds: dict[str, Scores] = {
        "magnitude": Magnitude(checkpoint), "change": Rows(root / "change", "change"), "random": Random(0),
    }  # fmt: skip
    scores = kinds[score]
    torch.bincount(torch.zeros(9, dtype=torch.int32), minlength=9)
    with growth_of_memory() as grown, tempfile.TemporaryDirectory(dir=root) as out:
        start, cpu = time.perf_counter(), time.process_time()
        if which == "read":
            reads = (read for parameter in parameters for read in scores.reads(parameter))
            with read_ahead(reads, workers, ahead=1) as blocks:
                for _ in blocks:
                    pass
        else:
            with selection_of(scores, parameters, Choice(0.05), workers) as chosen:
                write_bits(Path(out), parameters, chosen, OtherMasks())
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        size = sum(path.stat().st_size for path in Path(out).iterdir())
    numel = sum(parameter.numel for parameter in parameters)
    passes = 1 if which == "read" else 3
    return {
        "s": seconds, "cpu_s": cpu, "gb_per_s": 4e-9 * passes * numel / seconds, "mib": grown["mib"],
        "mask_bytes": size, "parameters": numel,
    }  # fmt: skip


@contextmanager
def growth_of_memory() -> Iterator[dict[str, float]]:
    """How far the process's own memory rises above what it is now, looked at every few milliseconds; in MiB."""
    found, done = {"mib": 0.0}, threading.Event()
    before = own_memory()

    def watch() -> None:
        while not done.wait(0.002):
            found["mib"] = max(found["mib"], (own_memory() - before) / 1024)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def own_memory() -> int:
    """This process's memory in KiB that is no page of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        write(Path(folder), int(arguments.parameters))
        for score in SCORES:
            found: dict[str, list[dict[str, Any]]] = {"read": [], "choose": []}
            for _ in range(arguments.rounds):
                for which in found:
                    command = [
                        sys.executable, "-m", "benchmarks.speed.mask_selection", "--measure", which, "--score", score,
                        "--work", folder, "--workers", str(arguments.workers),
                    ]  # fmt: skip
                    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    found[which].append(json.loads(output.splitlines()[-1]))
            speeds = {which: [run["gb_per_s"] for run in runs] for which, runs in found.items()}
            ratios = [choose / read for choose, read in zip(speeds["choose"], speeds["read"], strict=True)]
            rows[score] = {
                "ratio_of_speeds": {"median": statistics.median(ratios), "all": ratios},
                # On a machine that does other work meanwhile, time says little; the processor's time says more.
                "ratio_of_speeds_by_cpu_time": 3
                * statistics.median(run["cpu_s"] for run in found["read"])
                / statistics.median(run["cpu_s"] for run in found["choose"]),
                "choose_peak_mib": max(run["mib"] for run in found["choose"]),
                "read_peak_mib": max(run["mib"] for run in found["read"]),
                "gb_per_s": {which: statistics.median(values) for which, values in speeds.items()},
                "share_of_bf16": found["choose"][0]["mask_bytes"] / (2 * found["choose"][0]["parameters"]),
                "runs": found,
            }
            print(json.dumps({score: {key: value for key, value in rows[score].items() if key != "runs"}}), flush=True)
    return rows


def table(scores: dict[str, Any]) -> list[lines.Line]:
    """Speed over the bytes of all passes, beside that of reading the same blocks alone, which is the floor."""
    return [
        lines.line(
            f"mask by {score}", "speed over three passes", "GB/s",
            [run["gb_per_s"] for run in found["runs"]["choose"]], better="more",
            floor=lines.Beside("reading alone", [run["gb_per_s"] for run in found["runs"]["read"]]),
        )
        for score, found in scores.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=1e9)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="threads that read ahead")
    parser.add_argument("--work", type=Path, default=None, help="where the checkpoint is written meanwhile")
    parser.add_argument("--out", type=Path, default=None, help="directory for the raw results")
    parser.add_argument("--measure", choices=("read", "choose"), default=None, help=argparse.SUPPRESS)
    parser.add_argument("--score", choices=SCORES, default="magnitude", help=argparse.SUPPRESS)
    lines.add_option(parser)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.score, arguments.work, arguments.workers)))
        return
    load = os.getloadavg()
    result = {
        "benchmark": "mask_selection",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "load_average_before": load,
        "options": {"parameters": arguments.parameters, "rounds": arguments.rounds, "workers": arguments.workers},
        "scores": compare(arguments),
        "load_average_after": os.getloadavg(),
    }
    lines.write(arguments.lines, table(result["scores"]))
    if arguments.out is not None:
        name = f"mask_selection-{datetime.now(UTC).date()}.json"
        (arguments.out / name).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
