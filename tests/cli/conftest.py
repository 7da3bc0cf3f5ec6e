"""Running the command line inside the test process, and the artifacts that tests start from."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import data_registry.testbed
from ogpsa_cli.__main__ import run
from ogpsa_cli.launch import processes
from tests.distributed import loaded
from tests.distributed.loaded import Job

TESTBED_MODEL = Path(data_registry.testbed.__file__).parent / "model"
_LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One process, no network, and the log as it was."""
    for name in _LAUNCH_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The library reads the variable only once.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs ``ogpsa`` with these arguments in this process, from an empty directory."""
    monkeypatch.chdir(tmp_path)
    # Commands that would start a process for each GPU stay in this one.
    monkeypatch.setattr(processes, "num_devices", lambda: 1)

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def run_process(
    *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None, timeout_s: float = 900
) -> Outcome:
    """Runs ``ogpsa`` as a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "ogpsa_cli", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, timeout=timeout_s, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return Outcome(result.returncode, result.stdout, result.stderr)


def run_fork(*arguments: str | Path, cwd: Path) -> Outcome:
    """As :func:`run_process`, where this process and those that it starts are forks: their imports are done."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        words = [*map(str, arguments)]
        code = loaded.call(
            Job("tests.faults.forks", words, 1, dict(os.environ), str(cwd), str(out), str(err), timeout_s=3600)
        )
        return Outcome(code, out.read_text(), err.read_text())


def _make(arguments: Sequence[str | Path]) -> None:
    code = run([str(argument) for argument in arguments])
    assert code == 0, f"{arguments} ended with {code}"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model, two data sets and a basis that go together; tests copy what they damage."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(TESTBED_MODEL, root / "model")
    rows = ["--num-samples", "12"]
    _make(["prepare-data", "testbed-reason", *rows, "--out", root / "general"])
    _make(["prepare-data", "testbed-safety-sft", *rows, "--out", root / "safety"])
    _make(["prepare-data", "testbed-safety-dpo", *rows, "--out", root / "pairs"])
    build = ["build-basis", root / "model", "--reference", root / "general", "--num-samples", "4"]
    _make([*build, "--precision", "fp32", "--num-procs", "1", "--out", root / "basis"])
    return root
