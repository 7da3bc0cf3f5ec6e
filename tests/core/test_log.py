"""The log, the environment record and progress."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from data_registry.core.errors import ConfigError, OgpsaError, Preempted
from pipelines.core import environment, log, progress
from pipelines.core.progress import Progress, duration_text


@pytest.fixture(autouse=True)
def restored_logging() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_rank_zero_logs_information_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    logging.getLogger("pipelines.x").info("hello")
    logging.getLogger("pipelines.x").debug("details")
    logging.getLogger("transformers.x").warning("noise")
    captured = capsys.readouterr()
    assert captured.err == "hello\n"
    assert captured.out == ""


def test_verbose_shows_details(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(verbose=True)
    logging.getLogger("data_registry.x").debug("details")
    assert capsys.readouterr().err == "details\n"


def test_other_ranks_log_warnings_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    log.configure()
    logging.getLogger("pipelines.x").info("hello")
    logging.getLogger("pipelines.x").warning("careful")
    assert capsys.readouterr().err == "[rank 3] careful\n"


def test_environment_is_json_ready_and_imports_no_torch() -> None:
    import json
    import subprocess

    json.dumps(environment.describe())
    code = "import sys; from pipelines.core import environment as e; e.describe(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_errors_say_what_where_and_what_to_do() -> None:
    error = OgpsaError("it is broken", where="file.txt", fix="mend it")
    assert str(error) == "it is broken\n  where: file.txt\n  fix:   mend it"
    several = ConfigError(["first", "second"])
    assert several.what == "2 problems:\n  - first\n  - second"
    assert several.exit_code == 2
    assert Preempted("asked to stop").exit_code == 75


def test_progress_writes_plain_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    stream = io.StringIO()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("training", total=100, unit="steps") as shown:
        for _ in range(100):
            clock[0] += 0.5
            shown.advance(figures="loss 1.5")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "training: 20/100 steps, 2/s, 40 s left, loss 1.5"
    assert lines[-1].startswith("training: 100/100 steps")
    assert len(lines) == 6


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("quick") as shown:
        shown.advance(5)
    assert capsys.readouterr().err == ""


def test_other_ranks_show_no_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with Progress("training") as shown:
        shown.advance()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (45, "45 s"), (720, "12 min"), (3660, "1 h 01 min"), (36000, "10 h 00 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
