"""What waiting costs before any work: a finished chain run again, looks at what is there, training to its first step.

    python -m benchmarks.speed.startup --against OTHER_CHECKOUT --pairs 5 --out benchmarks/speed/results

Every command is a whole process, its children included, and is measured by processor time as well as by wall-clock
time. With ``--against`` it is run in turn with the code of another checkout, pair by pair, so that a busy moment of the
machine does not fall on one of them alone; each has a chain that its own code has made. The chain has ten steps on the
embedded model: a model, two data sets, a basis, samples, two runs of two steps, two evaluations and a report. Training
has taken its first step when the line of that step is in the metrics of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench import line as lines
from benchmarks.speed.whole_process import usual_environment

ROOT = Path(__file__).resolve().parents[2]
TRAINING = (
    "num-procs: 1, precision: fp32, max-steps: 2, learning-rate: 3e-4, batch-size: 16, accumulation: 1, max-length: 64"
)
CHAIN = f"""\
description: Ten steps on the embedded model.
out: made
threads: 1
steps:
  model: {{command: testbed}}
  safety: {{command: prepare-data, options: {{source: testbed-safety-sft}}}}
  assist: {{command: prepare-data, options: {{source: testbed-assist}}}}
  basis:
    command: build-basis
    options:
      {{model: "${{steps.model.out}}", reference: ["${{steps.assist.out}}"], num-procs: 1, precision: fp32,
       num-samples: 50, batch-size: 50, max-length: 64}}
  samples:
    command: sample
    options:
      {{model: "${{steps.model.out}}", data: "${{steps.assist.out}}", num-procs: 1, batch-size: 128, max-new-tokens: 24,
       log-probs: 64}}
  naive:
    command: train-sft
    options: {{model: "${{steps.model.out}}", data: "${{steps.safety.out}}", {TRAINING}}}
  update:
    command: train-sft
    options:
      {{model: "${{steps.model.out}}", data: "${{steps.safety.out}}", basis: "${{steps.basis.out}}", space: update,
       {TRAINING}}}
  naive-results:
    command: evaluate
    options: {{model: "${{steps.naive.out}}", suite: testbed, name: naive, batch-size: 128, num-procs: 1}}
  update-results:
    command: evaluate
    options: {{model: "${{steps.update.out}}", suite: testbed, name: projected, batch-size: 128, num-procs: 1}}
  report:
    command: report
    options: {{results: ["${{steps.naive-results.out}}", "${{steps.update-results.out}}"], start: naive}}
"""
PROFILE = "nodes: 1\ngpus-per-node: 1\ntime: '1:00:00'\n"
COMMANDS: dict[str, tuple[str, ...]] = {
    "run, ten steps up to date": ("run", "chain.yaml"),
    "inspect a run": ("inspect", "made/naive"),
    "report --dry-run": ("report", "made/naive-results", "made/update-results", "--dry-run", "--out", "another"),
    "slurm --dry-run": ("slurm", "chain.yaml", "--profile", "profile.yaml", "--dry-run"),
}
FIRST_STEP = "train-sft to the first step"
# What no program in Python can be quicker than, and what a training script with TRL does first.
FLOORS = {"python alone": "pass", "importing TRL's trainer alone": "from trl import SFTTrainer"}
PYTHON, TRAINER = FLOORS
TO_TRAIN = ("train-sft", "made/model", "--data", "made/safety", *(
    word for pair in TRAINING.replace("max-steps: 2", "max-steps: 1").split(", ") for word in ("--" + pair).split(": ")
), "--out", "trained")  # fmt: skip


def start(code: Path, work: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """``ogpsa`` with the code of a checkout."""
    return subprocess.Popen(
        [sys.executable, "-m", "ogpsa_cli", *arguments],
        cwd=work,
        env={**usual_environment(), "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def whole(code: Path, work: Path, arguments: Sequence[str]) -> dict[str, float]:
    """Seconds of one command from its start to its end, those of its children included."""
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    if start(code, work, arguments).wait():
        raise SystemExit(f"{' '.join(arguments)} failed with the code in {code}")
    wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall_s": wall, "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def floor(work: Path, program: str) -> dict[str, float]:
    """Seconds of a process that does nothing but this."""
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=work, env=usual_environment(), check=True)
    wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall_s": wall, "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def to_first_step(code: Path, work: Path) -> dict[str, float]:
    """Seconds of ``train-sft`` until its first step is in its metrics."""
    shutil.rmtree(work / "trained", ignore_errors=True)
    clock = time.perf_counter()
    process = start(code, work, TO_TRAIN)
    try:
        while not any(file.stat().st_size for file in work.glob(".trained*/metrics.jsonl")):
            if process.poll() is not None:
                raise SystemExit(f"training ended before its first step with the code in {code}")
            time.sleep(0.005)
        wall = time.perf_counter() - clock
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return {"wall_s": wall, "cpu_s": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")}
    finally:
        process.wait()


def make_world(code: Path, work: Path) -> None:
    """A finished chain."""
    work.mkdir()
    (work / "chain.yaml").write_text(CHAIN, encoding="utf-8")
    (work / "profile.yaml").write_text(PROFILE, encoding="utf-8")
    whole(code, work, ["run", "chain.yaml"])


def measure(codes: dict[str, Path], pairs: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """All measurements, by command and by code."""
    raw: dict[str, dict[str, list[dict[str, float]]]] = {
        name: {label: [] for label in codes} for name in (*COMMANDS, FIRST_STEP, *FLOORS)
    }
    with tempfile.TemporaryDirectory() as folder:
        works = {label: Path(folder) / label for label in codes}
        for label, code in codes.items():
            make_world(code, works[label])
            for arguments in COMMANDS.values():  # Reads the files into the system's cache.
                whole(code, works[label], arguments)
        for number in range(pairs):
            # Whoever is first in one pair is second in the next.
            order = list(codes) if number % 2 == 0 else list(codes)[::-1]
            for name, arguments in COMMANDS.items():
                for label in order:
                    raw[name][label].append(whole(codes[label], works[label], arguments))
            for label in order:
                raw[FIRST_STEP][label].append(to_first_step(codes[label], works[label]))
                for name, program in FLOORS.items():
                    raw[name][label].append(floor(works[label], program))
    return raw


def show(raw: dict[str, dict[str, list[dict[str, float]]]], labels: Sequence[str]) -> None:
    """Print medians, and the median, least and greatest ratio within a pair."""
    for name, by_code in raw.items():
        for unit in ("cpu_s", "wall_s"):
            columns = [[each[unit] for each in by_code[label]] for label in labels]
            texts = [
                f"{label} {statistics.median(column):6.2f} s" for label, column in zip(labels, columns, strict=True)
            ]
            if len(columns) == 2:
                ratios = [now / then for then, now in zip(*columns, strict=True)]
                texts.append(f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
            print(f"{name:<30} {unit.removesuffix('_s'):<5} {'   '.join(texts)}")


def table(raw: dict[str, dict[str, list[dict[str, float]]]]) -> list[lines.Line]:
    """The lines of the table: processor time, which is what an idle machine takes, beside the floors'."""

    def seconds(name: str) -> list[float]:
        return [each["cpu_s"] for each in raw[name]["now"]]

    floor, peer = (lines.Beside(name, seconds(name)) for name in (PYTHON, TRAINER))
    found = [lines.line(name, "whole process", "processor s", seconds(name), floor=floor) for name in COMMANDS]
    first = lines.line(FIRST_STEP, "from the start", "processor s", seconds(FIRST_STEP), peer=peer, floor=floor)
    return [*found, first]


def commit_of(code: Path) -> str:
    """The commit of a checkout, ``-dirty`` where it has changes."""
    described = ["git", "-C", str(code), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(described, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    """Measure, print and keep."""
    from pipelines.core.environment import package_versions

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="a checkout of an earlier state, measured in turn")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="the folder for the raw results")
    lines.add_option(parser)
    options = parser.parse_args()
    codes = {**({"before": options.against.resolve()} if options.against else {}), "now": ROOT}
    raw = measure(codes, options.pairs)
    show(raw, list(codes))
    lines.write(options.lines, table(raw))
    if options.out:
        date = datetime.now(UTC).date().isoformat()
        kept: dict[str, Any] = {
            "date": date,
            "command": "python -m benchmarks.speed.startup " + " ".join(
                word for word in sys.argv[1:] if word not in ("--against", str(options.against))
            ),
            "machine": {"processor": platform.machine(), "cpus": os.cpu_count(), "load": os.getloadavg()},
            "python": platform.python_version(),
            "packages": package_versions(),
            "commits": {label: commit_of(code) for label, code in codes.items()},
            "raw": raw,
        }  # fmt: skip
        (options.out / f"startup-{date}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
