"""``ogpsa run``: steps are run one by one, skipped where they are done, and stopped by failures and signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from data_registry.core.manifest import read_manifest
from ogpsa_cli.launch.steps import StepRunner
from tests.cli.conftest import Cli
from tests.cli.test_run import TWO_STEPS, write

# --- Running -----------------------------------------------------------------------------------------------------


def test_a_chain_runs_goes_on_and_is_up_to_date(cli: Cli) -> None:
    name = write(TWO_STEPS)
    # A step that fails: its data does not exist yet.
    failing = write(TWO_STEPS.replace("testbed-assist", "late.jsonl"), "failing.yaml")
    first = cli("run", failing)
    assert first.code == 2
    assert "step 'second' (2 of 2) ended with exit code 2; the 1 before it is done" in first.err
    made = read_manifest(Path("made/first"))
    assert made.command == [
        "ogpsa",
        "prepare-data",
        "testbed-reason",
        "--num-samples",
        "5",
        "--seed",
        "1",
        "--out",
        "made/first",
    ]
    before = cli("run", name, "--dry-run").out
    assert re.search(r"first .* up to date\n", before)
    assert re.search(r"second .* to do\n", before)
    second = cli("run", name)
    assert second.code == 0
    assert re.search(r"first +up to date .*\nsecond +made ", second.out)
    assert read_manifest(Path("made/first")) == made
    assert cli("run", name, "--dry-run").out.count("up to date") == 2
    changed = cli("run", name, "--dry-run", "--set", "seed=2").out
    assert re.search(r"first .* other settings: seed\n", changed)
    refused = cli("run", name, "--set", "seed=2")
    assert refused.code == 3
    assert "step 'first' (1 of 2) ended with exit code 3\n" in refused.err
    anew = cli("run", name, "--set", "seed=2", "--overwrite", "--only", "first")
    assert anew.code == 0
    assert read_manifest(Path("made/first")).config["seed"] == 2


class FakeCommands:
    """Stands for ``python -m ogpsa_cli``: what each step does is a line of shell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from ogpsa_cli.launch import processes

        real = processes.start_alone
        self.texts: list[str] = []
        self.started: list[Sequence[str]] = []

        def start(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
            self.started.append(command)
            return real([sys.executable, "-c", self.texts[len(self.started) - 1]], variables)

        monkeypatch.setattr(processes, "start_alone", start)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCommands:
    return FakeCommands(monkeypatch)


WAIT = """
import os, signal, sys, time
signal.signal(signal.{name}, lambda *_: sys.exit({code}))
open("ready", "w").close()
# A signal between the last instruction and one long sleep would be heard when that sleep ends.
while True: time.sleep(0.05)
"""


def signalled(texts: list[str], number: int, fake: FakeCommands, where: Path) -> int:
    """The exit code of a chain of such steps when a signal comes while the first of them runs."""
    fake.texts = texts
    sender = subprocess.Popen(
        [sys.executable, "-c", f"""
import os, time
while not os.path.exists({str(where / 'ready')!r}): time.sleep(0.02)
os.kill({os.getpid()}, {number})
"""],
    )  # fmt: skip
    os.chdir(where)
    runner = StepRunner()
    try:
        with runner.listening():
            for _ in texts:
                code = runner.run(["anything"])
                if code:
                    return code
        return 0
    finally:
        sender.wait()


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [("SIGTERM", 75, 75), ("SIGUSR1", 75, 75), ("SIGINT", 130, 130), ("SIGUSR1", 4, 4)],
)
def test_signals_reach_the_step_and_its_code_comes_back(
    name: str, code: int, expected: int, fake: FakeCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert signalled([WAIT.format(name=name, code=code), "1"], getattr(signal, name), fake, tmp_path) == expected
    assert len(fake.started) == 1


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_step_that_ends_by_the_signal_itself_is_resumable(
    number: int, fake: FakeCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); open('ready', 'w').close(); time.sleep(999)"
    )
    assert signalled([text, "1"], number, fake, tmp_path) == 75


def test_no_further_step_starts_after_a_signal(
    fake: FakeCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The step finishes its work all the same.
    text = """
import signal, time; received = []
signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
open("ready", "w").close()
while not received: time.sleep(0.02)
"""
    assert signalled([text, "1"], signal.SIGTERM, fake, tmp_path) == 75
    assert len(fake.started) == 1


def test_the_threads_of_a_recipe_reach_its_steps(cli: Cli, fake: FakeCommands, tmp_path: Path) -> None:
    fake.texts = ["import os; open('threads', 'w').write(os.environ['OMP_NUM_THREADS']); raise SystemExit(4)"]
    assert cli("run", write(TWO_STEPS.replace("out: made", "out: made\nthreads: 3"))).code == 4
    assert (tmp_path / "threads").read_text() == "3"


def test_a_directory_does_not_hide_the_recipe_of_its_name(cli: Cli) -> None:
    # ogpsa quickstart writes to a directory that is called like its recipe.
    Path("quickstart").mkdir()
    done = cli("run", "quickstart", "--dry-run")
    assert done.code == 0
    assert "ogpsa testbed --out runs/quickstart/model" in done.out


def test_a_killed_step_is_a_failure(fake: FakeCommands) -> None:
    fake.texts = ["import os; os.kill(os.getpid(), 9)"]
    runner = StepRunner()
    with runner.listening():
        assert runner.run(["anything"]) == 137


# A step that has its chain signalled when it comes to its work, and does none until the signal has come back to it.
CHAIN = """
import sys
from ogpsa_cli import __main__
from ogpsa_cli.launch import processes
from tests.faults.points import Point, command
start, point = processes.start_alone, Point("pipelines.preparing.rows:ordered_map", to="launcher")
processes.start_alone = lambda words, more: start([sys.executable, *command([point], "mark", *words[3:])], more)
__main__.main()
"""


def test_the_real_process_passes_75_through(tmp_path: Path) -> None:
    """The whole command, signalled while a step prepares data."""
    (tmp_path / "recipe.yaml").write_text(TWO_STEPS)
    process = subprocess.run(
        [sys.executable, "-c", CHAIN, "run", "recipe.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    said, _, rest = process.stderr.partition("\n")
    assert "[1/2] first (prepare-data)" in said
    assert process.returncode == 75
    assert "stopped in step 'first' (1 of 2); the same command goes on from there" in rest
    assert not (tmp_path / "made" / "data").exists()
