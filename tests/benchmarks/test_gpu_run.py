"""The one command for a GPU: what it runs, what it says where there is none, and that it keeps to its time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import gpu, line
from benchmarks.bench.launching import NoLinesError
from benchmarks.bench.line import Beside
from benchmarks.bench.registry import BENCHMARKS, Benchmark

FAKES = [Benchmark("one", "no.module", gpu="--large"), Benchmark("two", "no.module", gpu=""), Benchmark("cpu", "none")]
LINES = [line.line("a step", "time", "ms", [1.0, 1.2], floor=Beside("a copy", [1.0]))]
MACHINE = {
    "processor": "Model 1", "cpus": 16, "memory_gib": 128, "gpus": ["NVIDIA H200"], "driver": "570.1", "system": "x",
    "load": [0.0],
}  # fmt: skip
PASSED = {"passed": 3, "failed": 0, "skipped": 1, "names_of_failed": [], "seconds": 2.0}
FAILED = {"passed": 2, "failed": 1, "skipped": 1, "names_of_failed": ["test_resume[one-gpu]"], "seconds": 2.0}

Call = Callable[..., tuple[int, str, list[tuple[str, str]]]]


@pytest.fixture
def with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "nvidia_gpus", lambda: [("NVIDIA H200", "570.1")])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for where in ("gpu", "kept"):
        monkeypatch.setattr(f"benchmarks.bench.{where}.describe", lambda: dict(MACHINE))


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command; gives its exit code, what it printed, and what it ran at which size."""

    def calling(*arguments: str, tests: dict[str, Any] = PASSED, failing: str = "") -> Any:
        ran: list[tuple[str, str]] = []

        def launch(benchmark: Benchmark, size: str, *_: Any) -> list[line.Line]:
            ran.append((benchmark.name, size))
            if benchmark.name == failing:
                raise NoLinesError("exit code 1: CUDA out of memory")
            return LINES

        def run_tests(rehearsed: bool, *_: Any) -> dict[str, Any]:
            ran.append(("tests", "rehearsed" if rehearsed else "gpu"))
            return tests

        given = ["--out", str(tmp_path / "out"), *arguments]
        code = gpu.main(given, FAKES, launch, run_tests, tmp_path / "kept")
        said = capsys.readouterr()
        return code, said.out + said.err, ran

    return calling


def test_without_a_gpu_nothing_runs_and_that_is_said(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "nvidia_gpus", list)
    code, said, ran = call()
    assert (code, ran) == (2, [])
    assert "No GPU can be seen here: nothing of this ran on one." in said
    assert not list(tmp_path.iterdir())


def test_a_rehearsal_says_that_nothing_ran_on_a_gpu_and_keeps_nothing(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "nvidia_gpus", list)
    code, said, ran = call("--rehearse")
    assert (code, ran) == (0, [("tests", "rehearsed"), ("one", "quick"), ("two", "quick")])
    assert "nothing of this ran on one" in said
    assert not (tmp_path / "kept").exists()


@pytest.mark.usefixtures("with_gpus")
@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_is_hidden_is_none(call: Call, hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert call()[::2] == (2, [])


@pytest.mark.usefixtures("with_gpus")
def test_on_a_gpu_tests_and_benchmarks_run_and_the_table_is_kept(call: Call, tmp_path: Path) -> None:
    code, said, ran = call()
    assert (code, ran) == (0, [("tests", "gpu"), ("one", "gpu"), ("two", "gpu")])
    assert "Tests: 3 passed, 0 failed, 1 skipped" in said
    assert "NVIDIA H200 (driver 570.1)" in " ".join(said.split())
    (path,) = (tmp_path / "kept").iterdir()
    assert path.name.startswith("bench-gpu-")
    assert path.name.endswith("-nvidia-h200.json")
    table = json.loads(path.read_text())
    assert (table["tests"], table["machine"], table["size"]) == (PASSED, MACHINE, "gpu")
    assert table.keys() >= {"date", "commit", "versions"}


@pytest.mark.usefixtures("with_gpus")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tests": FAILED}, "FAILED: test_resume[one-gpu]"),
        ({"tests": {**PASSED, "passed": 0}}, "Tests: 0 passed"),  # All skipped is not passed.
        ({"failing": "one"}, "FAILED: one: exit code 1: CUDA out of memory"),
    ],
)
def test_what_failed_is_named(call: Call, options: dict[str, Any], said: str) -> None:
    code, printed, ran = call(**options)
    assert (code, len(ran)) == (1, 3)
    assert said in printed


@pytest.mark.usefixtures("with_gpus")
def test_what_has_no_time_left_is_named(call: Call) -> None:
    _, said, ran = call("--minutes", "0")
    assert ran == [("tests", "gpu")]
    assert said.count("not run: ") == 2


@pytest.mark.usefixtures("with_gpus")
def test_parts_can_be_chosen(call: Call) -> None:
    assert call("--only", "two")[2] == [("two", "gpu")]
    assert call("--only", "tests")[2] == [("tests", "gpu")]
    code, said, _ = call("--only", "cpu")
    assert code == 2
    assert "no benchmark is called 'cpu'; there are one, two (and tests)" in said


def test_reports_of_tests_are_counted(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    missing = gpu.read_report(report, "not done after 3 s and ended")
    assert missing == {
        "passed": 0, "failed": 1, "skipped": 0, "names_of_failed": ["all tests: not done after 3 s and ended"],
    }  # fmt: skip
    report.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure/></testcase>'
        '<testcase name="c"><skipped/></testcase><testcase name="d"><error/></testcase></testsuite></testsuites>'
    )
    assert gpu.read_report(report, "") == {"passed": 1, "failed": 2, "skipped": 1, "names_of_failed": ["b", "d"]}


def test_the_benchmarks_that_a_gpu_needs_are_there() -> None:
    assert {"projection", "bandwidth", "generation", "anchors"} <= {each.name for each in BENCHMARKS if each.gpu}
