"""Several real processes: exit codes, signals, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ogpsa_cli.launch import processes

CHILD = """
import os, signal, subprocess, sys, time
from pathlib import Path
rank = int(os.environ["RANK"])
folder = Path({folder!r})
(folder / f"pid-{{rank}}").write_text(str(os.getpid()))
{body}
(folder / f"done-{{rank}}").write_text("done")
"""
# Waits until every rank has said that it is there.
ALL_THERE = """
while len(list(folder.glob("ready-*"))) < int(os.environ["WORLD_SIZE"]):
    time.sleep(0.01)
"""
READY = '(folder / f"ready-{rank}").write_text("")\n'


@pytest.fixture(autouse=True)
def no_launcher_above(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def command(folder: Path, body: str) -> list[str]:
    return [sys.executable, "-c", CHILD.format(folder=str(folder), body=body)]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pids(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.glob("pid-*")]


def wait_for(condition: object, timeout_s: float = 600.0) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def assert_nobody_left(folder: Path) -> None:
    assert wait_for(lambda: not any(is_alive(pid) for pid in pids(folder)))


# --- Environment and exit codes ----------------------------------------------------------------------------------


def test_every_process_knows_who_it_is(tmp_path: Path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    body = f'(folder / f"env-{{rank}}").write_text(" ".join(os.environ[name] for name in {names!r}))'
    assert processes.start_processes(command(tmp_path, body), 3) == 0
    found = [(tmp_path / f"env-{rank}").read_text().split() for rank in range(3)]
    assert [values[:5] for values in found] == [[str(r), str(r), "3", "3", "127.0.0.1"] for r in range(3)]
    assert len({values[5] for values in found}) == 1
    assert {values[6] for values in found} == {str(max(1, len(os.sched_getaffinity(0)) // 3))}


def test_the_users_number_of_threads_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    environments = processes.environments(2, {"OMP_NUM_THREADS": "7"})
    assert {env["OMP_NUM_THREADS"] for env in environments} == {"7"}


@pytest.mark.parametrize("code", [1, 2, 3, 4, 75])
def test_the_first_failing_exit_code_comes_through(tmp_path: Path, code: int) -> None:
    body = f"sys.exit({code}) if rank == 1 else sys.exit(0)"
    assert processes.start_processes(command(tmp_path, body), 2) == code


def test_when_one_fails_the_others_are_ended(tmp_path: Path) -> None:
    body = READY + ALL_THERE + "sys.exit(4) if rank == 1 else time.sleep(3600)"
    assert processes.start_processes(command(tmp_path, body), 3) == 4
    assert not list(tmp_path.glob("done-*"))
    assert_nobody_left(tmp_path)


def test_who_does_not_listen_is_killed_with_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    body = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
(folder / f"pid-worker-{rank}").write_text(str(worker.pid))
"""
    body += READY + ALL_THERE + "sys.exit(3) if rank == 0 else time.sleep(3600)"
    assert processes.start_processes(command(tmp_path, body), 2) == 3
    assert len(pids(tmp_path)) == 4
    assert_nobody_left(tmp_path)


def test_death_by_signal_is_told_as_shells_do(tmp_path: Path) -> None:
    body = "os.kill(os.getpid(), signal.SIGKILL) if rank == 0 else time.sleep(3600)"
    assert processes.start_processes(command(tmp_path, body), 2) == 128 + signal.SIGKILL


def test_of_failures_that_are_seen_at_once_the_killed_process_is_the_cause() -> None:
    assert [processes._cause(codes) for codes in ([None, None], [0, None], [1, -9], [-9, 1], [None, 3, 2])] == [
        0, 0, -9, -9, 3,
    ]  # fmt: skip


def test_others_may_finish_saving_after_the_first_was_preempted(tmp_path: Path) -> None:
    body = "time.sleep(0.6 * rank); (folder / f'saved-{rank}').write_text(''); sys.exit(75)"
    assert processes.start_processes(command(tmp_path, body), 2) == 75
    assert (tmp_path / "saved-1").exists()


# --- Signals -----------------------------------------------------------------------------------------------------

LAUNCHER = (
    "import sys; from ogpsa_cli.launch import processes; sys.exit(processes.start_processes({command!r}, {number}))"
)
PREEMPTIBLE = """
def stop(number, frame):
    (folder / f"saved-{rank}").write_text(str(number))
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, stop)
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    code = LAUNCHER.format(command=command(tmp_path, PREEMPTIBLE + READY + "while True: time.sleep(0.05)"), number=2)
    process = subprocess.Popen([sys.executable, "-c", code])
    assert wait_for(lambda: len(list(tmp_path.glob("ready-*"))) == 2)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_every_process_and_75_comes_back(
    launcher: subprocess.Popen[bytes], tmp_path: Path, number: signal.Signals
) -> None:
    launcher.send_signal(number)
    assert launcher.wait(timeout=600) == 75
    assert [(tmp_path / f"saved-{rank}").read_text() for rank in range(2)] == [str(int(number))] * 2
    assert_nobody_left(tmp_path)


def test_an_interrupt_ends_all_with_130(launcher: subprocess.Popen[bytes], tmp_path: Path) -> None:
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=600) in (1, 130)  # a plain Python child ends with 130 by signal, or 1 by traceback
    assert_nobody_left(tmp_path)


def test_nobody_outlives_a_killed_launcher(launcher: subprocess.Popen[bytes], tmp_path: Path) -> None:
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    assert_nobody_left(tmp_path)


# --- Through the command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_wrong_number_of_processes_is_refused(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    from ogpsa_cli.__main__ import run

    assert run(["train-sft", "m", "--data", "d", "--out", "o", "--num-procs", number]) == 2
    assert "--num-procs" in capsys.readouterr().err


FAILING = """
import os, sys
from data_registry.core.errors import InputError
from ogpsa_cli import __main__
from ogpsa_cli.launch import ranks
if os.environ["RANK"] not in {failing!r}:
    ranks.time.sleep(3600)
# However much later rank zero starts; where it does not fail, nobody need wait for it.
ranks.PATIENCE_S = 600.0 if "0" in {failing!r} else 0.1
sys.exit(__main__._report(InputError("no such data"), verbose=False))
"""


@pytest.mark.parametrize(
    ("failing", "expected"), [("012", "error: no such data\n"), ("1", "[rank 1] error: no such data\n")]
)
def test_a_mistake_that_all_ranks_make_is_told_once(
    failing: str, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert processes.start_processes([sys.executable, "-c", FAILING.format(failing=failing)], 3) == 2
    assert capfd.readouterr().err == expected


@pytest.mark.distributed
def test_a_wrong_model_in_two_processes_is_told_once(tmp_path: Path) -> None:
    arguments = ["build-basis", str(tmp_path / "none"), "--reference", "r", "--out", str(tmp_path / "b")]
    result = subprocess.run(
        [sys.executable, "-m", "ogpsa_cli", *arguments, "--num-procs", "2"], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 2
    assert result.stderr.count("error:") == 1
    assert list(tmp_path.iterdir()) == []
