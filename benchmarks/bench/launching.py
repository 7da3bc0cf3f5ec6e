"""Running benchmarks one after the other, each in its own processes; one that fails is named, and the rest goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench.line import Line, read
from benchmarks.bench.registry import Benchmark, Size

ROOT = Path(__file__).resolve().parents[2]


class NoLinesError(Exception):
    """A benchmark did not give lines; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What became of one benchmark.

    Attributes:
        name: the benchmark's name.
        arguments: what its script was given.
        lines: its lines, if it succeeded.
        seconds: how long it took.
        failed: why it gave no lines; empty where it did.
        left_out: why it was not run; empty where it was.
    """

    name: str
    arguments: str = ""
    lines: list[Line] = field(default_factory=list)
    seconds: float = 0.0
    failed: str = ""
    left_out: str = ""


# Runs one benchmark within so many seconds, with its log in a folder, and gives its lines; raises NoLinesError.
Launch = Callable[[Benchmark, Size, Path, float], list[Line]]


def launch(benchmark: Benchmark, size: Size, folder: Path, limit_s: float) -> list[Line]:
    """Run a benchmark's script, with what it prints in ``FOLDER/NAME.log``, and read its lines.

    Args:
        benchmark: which one.
        size: how large.
        folder: for the log and the lines.
        limit_s: after so many seconds it is ended with all its processes.

    Raises:
        NoLinesError: it ended with an error, or late, or without lines.
    """
    folder = folder.absolute()
    lines, log = folder / f"{benchmark.name}.json", folder / f"{benchmark.name}.log"
    lines.unlink(missing_ok=True)
    try:
        code = run_logged(benchmark.command(size, lines), log, limit_s, _environment(size))
    except subprocess.TimeoutExpired:
        raise NoLinesError(f"not done after {limit_s:.0f} s and ended; see {log}") from None
    if code:
        raise NoLinesError(f"exit code {code}: {_last_line(log)}; see {log}")
    try:
        return read(json.loads(lines.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise NoLinesError(f"ended well, but wrote no lines ({error}); see {log}") from None


def run_logged(command: Sequence[str], log: Path, limit_s: float, env: Mapping[str, str] | None = None) -> int:
    """Run a command with what it prints in a file; none of its processes outlives it.

    Raises:
        subprocess.TimeoutExpired: it was not done after so many seconds, and was ended.
    """
    with log.open("w", encoding="utf-8") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True, cwd=ROOT
        )
        try:
            return child.wait(timeout=limit_s)
        finally:
            _end(child)


def run(
    benchmarks: Sequence[Benchmark],
    size: Size,
    folder: Path,
    *,
    limit_s: float,
    total_s: float | None = None,
    launch: Launch = launch,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run benchmarks one after the other.

    Args:
        benchmarks: which.
        size: how large.
        folder: for logs and raw lines; made where it is missing.
        limit_s: the longest that one of them may take.
        total_s: the longest that all may take; those whose turn comes later are left out.
        launch: how one is run.
        say: told what is under way.

    Returns:
        an outcome for each, in their order; on Ctrl-C those that were not run are left out, and say so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    outcomes: list[Outcome] = []
    stopped = ""
    for benchmark in benchmarks:
        left = limit_s if total_s is None else min(limit_s, total_s - (time.monotonic() - begun))
        reason = stopped or _missing(benchmark) or ("" if left > 0 else f"the {total_s:.0f} s were over")
        if reason:
            outcomes.append(Outcome(benchmark.name, left_out=reason))
            continue
        say(f"{benchmark.name} ...")
        arguments, started = getattr(benchmark, size) or "", time.monotonic()
        try:
            lines = launch(benchmark, size, folder, left)
            outcome = Outcome(benchmark.name, arguments, lines, time.monotonic() - started)
        except NoLinesError as error:
            outcome = Outcome(benchmark.name, arguments, [], time.monotonic() - started, failed=str(error))
        except KeyboardInterrupt:
            stopped = "interrupted"
            outcome = Outcome(benchmark.name, left_out=stopped)
        outcomes.append(outcome)
        say(f"  {outcome.failed or outcome.left_out or f'{outcome.seconds:.0f} s'}")
    return outcomes


def _missing(benchmark: Benchmark) -> str:
    missing = [name for name in benchmark.needs if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(missing)}, which is not installed" if missing else ""


def _environment(size: Size) -> dict[str, str]:
    # Unbuffered, so that the last line of a log is what was said last.
    own = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if size != "gpu":
        # Figures of processors, also on a machine that has a GPU; there several ranks would share one.
        own |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    return {**os.environ, **own}


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child's whole group of processes: a launcher's ranks would otherwise outlive it."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _last_line(log: Path) -> str:
    lines = [text.strip() for text in log.read_text(encoding="utf-8", errors="replace").splitlines() if text.strip()]
    return lines[-1][:200] if lines else "it printed nothing"
