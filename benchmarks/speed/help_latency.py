"""How long ``ogpsa --help`` and every ``ogpsa COMMAND --help`` take, as whole processes.

Run from the repository with the environment's interpreter: ``python -m benchmarks.speed.help_latency``. The commands
are measured in turn, round after round, so that a busy moment of the machine does not fall on one of them alone. Beside
wall-clock time stands processor time, which is what an idle machine takes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from benchmarks.bench import line as lines
from benchmarks.speed.whole_process import usual_environment

LIMIT_S = 0.3


def commands() -> list[list[str]]:
    from pipelines.configs.commands import COMMANDS

    return [["--help"], ["--version"], *([entry.name, "--help"] for entry in COMMANDS)]


def measure(arguments: list[str]) -> tuple[float, float]:
    """Wall-clock and processor seconds of one whole process."""
    script = Path(sysconfig.get_path("scripts")) / "ogpsa"
    return timed([str(script), *arguments])


def timed(command: list[str]) -> tuple[float, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, env=usual_environment(), check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    lines.add_option(parser)
    options = parser.parse_args()
    for arguments in commands():  # Reads the files into the system's cache.
        measure(arguments)
    seconds: dict[str, list[tuple[float, float]]] = {}
    bare: list[float] = []
    for _ in range(options.rounds):
        bare.append(timed([sys.executable, "-c", "pass"])[1])
        for arguments in commands():
            seconds.setdefault(" ".join(["ogpsa", *arguments]), []).append(measure(arguments))
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {options.rounds} rounds")
    print(f"{'command':<28} {'median':>8} {'fastest':>8} {'slowest':>8} {'cpu':>8}")
    figures = {}
    for name, pairs in seconds.items():
        walls = [wall for wall, _ in pairs]
        median, cpu = statistics.median(walls), statistics.median(cpu for _, cpu in pairs)
        figures[name] = {"median_s": median, "min_s": min(walls), "max_s": max(walls), "cpu_s": cpu}
        late = "" if median < LIMIT_S else f"  over {LIMIT_S} s"
        print(f"{name:<28} {median:7.3f}s {min(walls):7.3f}s {max(walls):7.3f}s {cpu:7.3f}s{late}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if options.lines:
        lines.write(options.lines, table(seconds, bare))
        return 0
    return int(any(figure["median_s"] >= LIMIT_S for figure in figures.values()))


def table(seconds: dict[str, list[tuple[float, float]]], bare: list[float]) -> list[lines.Line]:
    """Processor time of help, as lines; the floor is Python itself."""
    floor = lines.Beside("python -c pass", bare)
    slowest = max(seconds, key=lambda name: statistics.median(cpu for _, cpu in seconds[name]))
    shown = {
        "ogpsa --help": "ogpsa --help",
        "ogpsa train-sft --help": "ogpsa train-sft --help",
        "slowest help": slowest,
    }
    return [
        lines.line(name, "processor time", "s", [cpu for _, cpu in seconds[command]], floor=floor)
        for name, command in shown.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
