"""Every command asked to stop at points of its work: ``python -m tests.faults.stops``.

Each command is stopped at one point after the other, each time by the same command that was stopped before, and at last
left to finish: what it has made then is compared to the byte with what a run makes that nobody disturbed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from tests.faults import boundaries, comparison, processes
from tests.faults.commands import COMMANDS, OUT, Command
from tests.faults.points import Point, further
from tests.faults.processes import Ended
from tests.faults.trials import Stage

STOPPED, INTERRUPTED = 75, 130
_AGAIN = "nothing half-written is left; run the same command again"
_TWICE = ("SIGINT", "SIGINT")
_ALONE = ("--num-procs", "1")
_SHORT = ("--max-length", "64", "--precision", "fp32", "--batch-size", "2")
_TRAINING = (*_SHORT, *_ALONE, "--basis", "basis", "--refresh-every", "2", "--accumulation", "1", "--log-every", "1")


@dataclass(frozen=True)
class Stop:
    """Where a command is asked to stop, and what it then says.

    Attributes:
        points: where; several for several signals.
        says: part of its one line.
        code: exit code.
        stays: unfinished work is kept, from which the same command goes on.
    """

    points: tuple[Point, ...]
    says: str = _AGAIN
    code: int = STOPPED
    stays: bool = False


def at(function: str, number: str = "SIGTERM", call: int = 1, **more: object) -> Stop:
    """Asked to stop by one signal."""
    return Stop((Point(function, (number,), call),), **more)  # type: ignore[arg-type]


def interrupted_twice_at(function: str, call: int = 1, *, stays: bool = False) -> Stop:
    """Ctrl-C, and again while the first waits to be acted upon: the end, at once and without saving."""
    return Stop((Point(function, _TWICE, call),), "interrupted", INTERRUPTED, stays)


@dataclass(frozen=True)
class Series:
    """A command and where it is stopped, in turn."""

    command: Command
    stops: tuple[Stop, ...]


_TIDYING = (
    Point("pipelines.core.artifact:put_in_place", ("SIGINT",)),
    Point("pipelines.core.artifact:discard", ("SIGINT",)),
)
_FORMAT = "verdicts.yaml"
_AT_BOUNDARY = "pipelines.transforms.chain:TransformChain.at_boundary"
_REFRESH = "pipelines.transforms.chain:TransformChain.refresh"
_GENERATING = "pipelines.evaluation.answering.asking:_read"
SERIES: dict[str, Series] = {
    "prepare-data": Series(COMMANDS["prepare-data"], (
        at("pipelines.preparing.rows:ordered_map"),
        at("data_registry.preparing.arrow_folder:ArrowFolder.write", "SIGUSR1"),
        at("data_registry.preparing.arrow_folder:ArrowFolder.finish", "SIGINT"),
        at("pipelines.core.artifact:hash_directory"),
        at("pipelines.core.artifact:put_in_place", "SIGUSR1"),
        # Here the first ends it already; the second comes while it is tidying up.
        Stop(_TIDYING, "interrupted", INTERRUPTED, stays=True),
    )),
    "build-basis": Series(COMMANDS["build-basis"], (
        at("pipelines.basis.objectives.tokens:encode_fitting"),
        at("pipelines.basis.building:load_training_model", "SIGUSR1"),
        at("pipelines.engine.shards.replicated:ReplicatedAccess.accumulate", "SIGINT"),
        interrupted_twice_at("pipelines.engine.shards.replicated:ReplicatedAccess.accumulate"),
        at("pipelines.basis.storage:write_rows", "SIGUSR1"),
    )),
    "score-tokens": Series(COMMANDS["score-tokens"], (
        at("pipelines.token_weights.making:read_answers"),
        at("pipelines.token_weights.scoring:token_log_probs", "SIGUSR1", 2, stays=True),
        interrupted_twice_at("pipelines.token_weights.scoring:token_log_probs", stays=True),
        at("pipelines.token_weights.making:write_token_weights", "SIGINT", stays=True),
    )),
    "train-sft": Series(
        Command(("train-sft", "model", "--data", "safety", "--max-steps", "6", "--save-every", "4",
                 "--eval-split", "0.25", "--eval-every", "5", *_TRAINING, "--out", OUT)), (
        at("pipelines.training.sft:sft_data"),
        at("pipelines.training.run:load_training_model", "SIGUSR1"),
        interrupted_twice_at(_AT_BOUNDARY),
        at(_AT_BOUNDARY, "SIGINT", says="step 1 of 6: saved", stays=True),
        # The refresh is given up: what is saved is the step before it.
        at(_REFRESH, "SIGUSR1", says="step 2 of 6: saved", stays=True),
        at("pipelines.training.checkpoints.checkpointer:Checkpointer._write", says="step 4 of 6: saved", stays=True),
        interrupted_twice_at(_AT_BOUNDARY, stays=True),
        # What remains then is to save the model.
        at("pipelines.training.plots:draw_plots", says="", code=0),
    )),
    "train-dpo": Series(
        Command(("train-dpo", "model", "--data", "pairs", "--max-steps", "4", *_TRAINING, "--out", OUT),
                makes=(OUT, "reference-logps")), (
        at("pipelines.passes.log_probs:token_log_probs", "SIGUSR1", call=2),
        interrupted_twice_at("pipelines.passes.log_probs:token_log_probs", call=2),
        at("pipelines.training.data.reference_log_probs:make"),
        at(_REFRESH, "SIGHUP", says="step 2 of 4: saved", stays=True),
    )),
    "train-npo": Series(
        Command(("train-npo", "model", "--data", "pairs", "--max-steps", "4", "--save-every", "2", "--retain-weight",
                 "1", *_TRAINING, "--out", OUT), makes=(OUT, "reference-logps")), (
        at("pipelines.passes.log_probs:token_log_probs", "SIGUSR1", call=2),
        at("pipelines.training.data.reference_log_probs:make"),
        interrupted_twice_at("pipelines.training.npo:unlearning_loss_sum"),
        at(_AT_BOUNDARY, "SIGINT", says="step 1 of 4: saved", stays=True),
        at("pipelines.training.checkpoints.checkpointer:Checkpointer._write", says="step 2 of 4: saved", stays=True),
    )),
    "evaluate": Series(
        Command(("evaluate", "model", "--suite", "prompts", "--harmful", "few.txt", "--suite", "reference-loss",
                 "--data", "general", "--judge", "model", "--judge-format", _FORMAT, "--max-new-tokens", "4",
                 "--batch-size", "2", *_ALONE, "--out", OUT)), (
        at("pipelines.evaluation.measuring:ask"),
        at(_GENERATING, "SIGUSR1", 2, says="with 4 of 6 answers", stays=True),
        interrupted_twice_at(_GENERATING, stays=True),
        at("pipelines.evaluation.suites.sample_losses:_batch_losses", stays=True),
        at("pipelines.evaluation.judges.models:load_model", stays=True),
        # All answers are there, so that what is generated now is verdicts.
        at(_GENERATING, "SIGINT", says="with 2 of 6 answers", stays=True),
        at("pipelines.evaluation.measuring:write_answers", "SIGUSR1", stays=True),
    )),
    "merge": Series(COMMANDS["merge"], (
        at("pipelines.merging.measuring:_measure", call=3),
        at("pipelines.weights.writing:TensorFile.add", "SIGINT", call=2),
        at("pipelines.merging.making:draw_rho", "SIGUSR1"),
    )),
    "report": Series(COMMANDS["report"], (at("pipelines.reporting.writing:draw_bars", "SIGHUP"),)),
    "testbed": Series(COMMANDS["testbed"], (at("pipelines.core.artifact:hash_directory", "SIGINT"),)),
}  # fmt: skip


@dataclass
class Finding:
    """What came of one stop.

    Attributes:
        command: name of the series.
        where: function and signals.
        seconds: from the signal to the end of the process.
        problems: everything that should not be.
    """

    command: str
    where: str
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def findings(name: str, root: Path) -> Iterator[Finding]:
    """Stop a command at all its points, then let it finish and compare."""
    series = SERIES[name]
    stage = Stage(name, root, random.Random(0), command=series.command, twice=False)
    before, mark = stage.begin(), root / "mark"
    for stop in series.stops:
        mark.unlink(missing_ok=True)
        further(mark).unlink(missing_ok=True)
        ended = stage.run(arm=partial(_arm, stop.points, mark))
        where = ", ".join(f"{point.function.partition(':')[2]} {' '.join(point.signals)}" for point in stop.points)
        finding = Finding(name, where)
        if not mark.exists():
            finding.problems.append(f"it never came there, and ended with {ended.code}: {ended.err[-600:]}")
        else:
            finding.seconds = max(0.0, time.time() - float(mark.read_text()))
            finding.problems += _unclear(stop, ended)
            # A step that has begun may end, and be saved; nobody waits for more of the work to be done.
            if stop.code and further(mark).exists() and int(further(mark).read_text()) > 1:
                finding.problems.append(f"it went on: {further(mark).read_text()} further calls")
        if stop.code:
            now = comparison.snapshot(stage.place)
            finding.problems += comparison.lost(now, before) + comparison.half_written(stage.place, before)
            hidden = [path for path in stage.place.rglob("*") if path.name.startswith(".")]
            if hidden and not stop.stays and stop.code != INTERRUPTED:
                finding.problems.append(f"{hidden[0].relative_to(stage.place)} is left")
        yield finding
    finding = Finding(name, "the same command at last")
    ended = stage.run()
    if ended.code:
        finding.problems.append(f"it ended with {ended.code}: {ended.err.strip()[-600:]}")
    finding.problems += comparison.differences(comparison.snapshot(stage.place), stage.undisturbed.after)
    yield finding


_while_it_lives = contextlib.ExitStack()


def _arm(points: Sequence[Point], mark: Path) -> None:
    """In the process that will be stopped."""
    from data_registry.core import stopping
    from tests.faults.points import armed

    stopping.listen()
    _while_it_lives.enter_context(armed(points, mark))


def _unclear(stop: Stop, ended: Ended) -> list[str]:
    """What is wrong with exit code and words."""
    problems = []
    if ended.code != stop.code:
        problems.append(f"exit code {ended.code}, not {stop.code}: {ended.err.strip()[-600:]}")
    if stop.code == 0:
        return problems
    last = ended.err.strip().splitlines()[-1:] or [""]
    names = "|".join(point.signals[0] for point in stop.points)
    begins = rf"stopped (\(({names})\)|with)" if stop.code == STOPPED else ""
    if stop.says not in last[0] or not re.match(begins, last[0]):
        problems.append(f"its last line is '{last[0]}'")
    if sum(line.startswith("stopped") for line in ended.err.splitlines()) > 1:
        problems.append("it says so more than once")
    problems += [f"it shows '{word}'" for word in ("Traceback", "error:", "Exception ignored") if word in ended.err]
    return problems


def show(found: Sequence[Finding]) -> None:
    """A line for each stop."""
    for one in found:
        print(f"{one.command:14} {one.seconds:6.2f} s  {one.where}{''.join(f'{chr(10)}    {p}' for p in one.problems)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", action="append", choices=list(SERIES), help="only this one; repeatable")
    parser.add_argument("--json", type=Path, help="write the findings here")
    options = parser.parse_args()
    boundaries.with_library("tests.faults.stops")
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    os.environ |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"}
    # Under nohup SIGHUP is ignored, here as by everything that is started.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    processes.import_libraries()
    root = Path(tempfile.mkdtemp(prefix="ogpsa-stops-"))
    found: list[Finding] = []
    try:
        for number, name in enumerate(options.command or SERIES):
            found += findings(name, root / str(number))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    show(found)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1))
    return 1 if any(one.problems for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
