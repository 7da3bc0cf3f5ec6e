"""Signals and dead ranks, with real processes of the real command: exit codes, what is said, what the rerun makes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from data_registry.core import stopping
from tests.cli.conftest import run_process
from tests.faults import points
from tests.faults.points import Point

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
# A bound for what hangs.
TIMEOUT_S = 900
ALONE = [sys.executable, "-m", "ogpsa_cli"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ogpsa_cli"]


class Started:
    """A command that runs, with what it says going to a file."""

    def __init__(self, folder: Path, *arguments: str | Path, by: list[str] = ALONE, new_group: bool = False) -> None:
        self.log = folder / "log.txt"
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        env["PYTHONPATH"] = str(ROOT)
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*by, *map(str, arguments)], stdout=stream, stderr=subprocess.STDOUT, cwd=folder, env=env,
                process_group=0 if new_group else None,
            )  # fmt: skip

    def said(self) -> str:
        return self.log.read_text()

    def until(self, condition: object) -> None:
        assert callable(condition)
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def end(self, number: int | None = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@contextlib.contextmanager
def started(folder: Path, *arguments: str | Path, by: list[str] = ALONE, new_group: bool = False) -> Iterator[Started]:
    command = Started(folder, *arguments, by=by, new_group=new_group)
    try:
        yield command
    finally:
        command.process.kill()
        command.process.wait()


def lines_logged(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.glob(".run.partial-*/metrics.jsonl"))


@pytest.fixture
def training(made: Path, tmp_path: Path) -> list[str | Path]:
    """A training command far too long to be over before it is met: 3 steps an epoch, refreshed before every second."""
    for name in ("model", "safety", "basis"):
        shutil.copytree(made / name, tmp_path / name)
    return [
        "train-sft", "model", "--data", "safety", "--basis", "basis", "--precision", "fp32", "--batch-size", "2",
        "--accumulation", "2", "--epochs", "5000", "--refresh-every", "2", "--log-every", "1", "--out", "run",
    ]  # fmt: skip


AT_STEP = "pipelines.transforms.chain:TransformChain.at_boundary"
NOTHING_LEFT = "stopped ({}): nothing half-written is left; run the same command again"
SAVED = re.compile(r"stopped \((SIGTERM|SIGUSR1|SIGINT)\) at step (\d+) of \d+: saved; the same command goes on")


def outcome_of(run: Path) -> dict[str, object]:
    metrics = [
        re.sub(r'"(?:train_\w+|tokens_per_second)": [\d.e+-]+,? ?', "", line) for line in (run / "metrics.jsonl").open()
    ]
    weights = load_file(run / "model/model.safetensors")
    return {"metrics": metrics, **{key: value.tolist() for key, value in weights.items()}}


def test_stopped_and_finished_it_is_the_undisturbed_run(training: list[str | Path], tmp_path: Path) -> None:
    training[training.index("5000")] = "20"
    point = Point(AT_STEP, ("SIGTERM",), call=4)
    command = [sys.executable, *points.command([point], tmp_path / "mark", *training, "--num-procs", "1")]
    with started(tmp_path, by=command) as run:
        assert run.end() == 75, run.said()
    found = SAVED.search(run.said())
    assert found is not None, run.said()
    assert found.group(1) == "SIGTERM"
    # Said once, in one line, with no traceback.
    assert run.said().count("stopped (") == 1
    assert "Traceback" not in run.said()
    with started(tmp_path, *training, "--num-procs", "1") as run:
        assert run.end() == 0, run.said()
    assert f"going on from step {found.group(2)}" in run.said()
    assert not list(tmp_path.glob(".run*"))
    (tmp_path / "run").rename(tmp_path / "stopped")
    with started(tmp_path, *training, "--num-procs", "1", "--save-every", "0") as run:
        assert run.end() == 0, run.said()
    assert outcome_of(tmp_path / "stopped") == outcome_of(tmp_path / "run")


def test_two_ranks_of_ours_agree(training: list[str | Path], tmp_path: Path) -> None:
    with started(tmp_path, *training, "--num-procs", "2", "--zero", "2") as run:
        run.until(lambda: lines_logged(tmp_path) > 2)
        assert run.end(signal.SIGUSR1) == 75, run.said()
    assert SAVED.search(run.said()), run.said()
    assert run.said().count("stopped (") == 1
    assert len(list(tmp_path.glob(".run.partial-*/.checkpoints/checkpoint-*"))) == 1


def test_a_second_interrupt_ends_at_once(training: list[str | Path], tmp_path: Path) -> None:
    with started(tmp_path, *training, "--num-procs", "2") as run:
        run.until(lambda: lines_logged(tmp_path) > 0)
        # A rank that does not answer: the others wait for it, and so would the command.
        (rank_one,) = [pid for pid in children(run.process.pid) if b"RANK=1" in environment(pid)]
        os.kill(rank_one, signal.SIGSTOP)
        run.process.send_signal(signal.SIGINT)
        time.sleep(1.5 * stopping.SAME_INTERRUPT_S)
        assert run.process.poll() is None
        # Where the first was noticed late, the second is taken for the same; one of them ends it at last.
        while run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(1.5 * stopping.SAME_INTERRUPT_S)
        assert run.end() == 130, run.said()


def launched(tmp_path: Path, point: Point, *arguments: str | Path, torchrun: Sequence[str] | None = None) -> list[str]:
    """Two ranks that come to a point: started by torchrun with these options, or by ogpsa itself."""
    words = points.command([point], tmp_path / "mark", *arguments)
    if torchrun is None:
        start = "processes.start_processes(sys.argv[1:], 2, listens=True)"
        code = f"import sys; from ogpsa_cli.launch import processes; sys.exit({start})"
        return [sys.executable, "-c", code, sys.executable, *words]
    return [*TORCHRUN[:-2], *torchrun, *words]


def test_torchrun_hands_signals_on_and_inspect_says_what_became_of_it(
    training: list[str | Path], tmp_path: Path
) -> None:
    forwards = ["--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1"]
    for point, options in (
        (Point(AT_STEP, ("SIGTERM",), call=2, to="launcher", ranks=(1,)), []),
        (Point(AT_STEP, ("SIGUSR1",), call=2, to="launcher", ranks=(1,)), forwards),
        # As Ctrl-C does: the ranks are in sessions of their own.
        (Point(AT_STEP, ("SIGINT",), call=2, to="launcher", ranks=(1,)), []),
    ):
        (number,) = point.signals
        command = launched(tmp_path, point, *training, torchrun=options)
        with started(tmp_path, by=command) as run:
            # torchrun's own exit code says nothing about it.
            assert run.end() == 1, run.said()
        found = SAVED.search(run.said())
        assert found is not None, run.said()
        assert found.group(1) == number
        assert run.said().count(": stopped (") + run.said().count("\nstopped (") == 1
    left = run_process("inspect", "run", cwd=tmp_path)
    assert (left.code, left.out) == (75, "")
    assert left.err == f"'{tmp_path / 'run'}' is not finished: {found.group(0)} from there\n"


def test_ranks_of_ours_that_are_signalled_before_they_work_together_leave_nothing(made: Path, tmp_path: Path) -> None:
    build = ["build-basis", made / "model", "--reference", made / "general", "--num-samples", "4", "--out", "basis"]
    point = Point("pipelines.basis.objectives.tokens:encode_fitting", ("SIGUSR1",), to="launcher", ranks=(1,))
    with started(tmp_path, by=launched(tmp_path, point, *build)) as run:
        assert run.end() == 75, run.said()
    assert run.said().splitlines() == [NOTHING_LEFT.format("SIGUSR1")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "mark"]


def test_a_signal_to_the_whole_group_ends_workers_and_is_no_error(tmp_path: Path) -> None:
    rows = [json.dumps({"instruction": f"what is {n} ?", "output": f"it is {n}"}) for n in range(30_000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    prepare = ["prepare-data", "rows.jsonl", "--num-workers", "2", "--out", "data"]
    point = Point("data_registry.preparing.arrow_folder:ArrowFolder.write", ("SIGTERM",), call=2, to="group")
    command = [sys.executable, *points.command([point], tmp_path / "mark", *prepare)]
    with started(tmp_path, by=command, new_group=True) as run:
        assert run.end() == 75, run.said()
    assert run.said().splitlines()[1:] == [NOTHING_LEFT.format("SIGTERM")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "mark", "rows.jsonl"]


@pytest.mark.parametrize("by", [ALONE, TORCHRUN], ids=["ours", "torchrun"])
def test_a_dead_rank_ends_the_job(training: list[str | Path], tmp_path: Path, by: list[str]) -> None:
    options = ["--save-every", "1", *(["--num-procs", "2"] if by is ALONE else [])]
    with started(tmp_path, *training, *options, by=by) as run:
        run.until(lambda: lines_logged(tmp_path) > 2)
        (rank_one,) = [pid for pid in children(run.process.pid) if b"RANK=1" in environment(pid)]
        os.kill(rank_one, signal.SIGKILL)
        # Left to itself, the other would wait for the dead one far longer than this test for the command.
        code = run.end()
    assert code == (128 + signal.SIGKILL if by is ALONE else 1), run.said()
    assert "bug of ogpsa" not in run.said()
    if by is ALONE:
        assert run.said().count("error:") == 1
        assert "process 2 of 2 was ended by SIGKILL" in run.said()
    else:
        assert "another process of this job ended" in run.said()
    assert list(tmp_path.glob(".run.partial-*/.checkpoints/checkpoint-*"))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def environment(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
