"""All benchmarks in one command: what it runs, prints, keeps and calls worse; with made-up benchmarks, in process."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import kept, line, machine
from benchmarks.bench.__main__ import main
from benchmarks.bench.launching import NoLinesError, launch, run
from benchmarks.bench.line import Beside, Line
from benchmarks.bench.registry import BENCHMARKS, Benchmark, chosen

MACHINE = {
    "processor": "Model 1", "cpus": 2, "memory_gib": 8, "gpus": [], "driver": None, "system": "x", "load": [0.0],
}  # fmt: skip
FAKES = [Benchmark("fast", "no.module", full="--rounds 9"), Benchmark("other", "no.module")]


def a_line(ratios: list[float], better: line.Better = "less", name: str = "a step") -> Line:
    return line.line(name, "time", "s", ratios, floor=Beside("the least", [1.0]), better=better)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.bench.kept.describe", lambda: dict(MACHINE))
    monkeypatch.setattr("benchmarks.bench.__main__.describe", lambda: dict(MACHINE))


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command on what each benchmark is to give: lines, or an error."""

    def call(given: dict[str, list[Line] | Exception], *arguments: str) -> tuple[int, str]:
        def give(benchmark: Benchmark, *_: Any) -> list[Line]:
            found = given[benchmark.name]
            if isinstance(found, Exception):
                raise found
            return found

        fakes = [fake for fake in FAKES if fake.name in given]
        code = main(["--out", str(tmp_path / "out"), *arguments], fakes, give, tmp_path / "kept")
        return code, capsys.readouterr().out

    return call


@pytest.mark.parametrize(
    ("before", "now", "better", "worse"),
    [
        ([1.00, 1.01, 1.02], [1.20, 1.21, 1.22], "less", True),
        ([1.00, 1.01, 1.02], [1.08, 1.09, 1.10], "less", False),  # Beyond the spread, but not by a tenth.
        ([0.80, 1.00, 1.40], [0.90, 1.15, 1.50], "less", False),  # By more than a tenth, but within the spread.
        ([1.20, 1.21, 1.22], [1.00, 1.01, 1.02], "less", False),
        ([1.20, 1.21, 1.22], [1.00, 1.01, 1.02], "more", True),
        ([1.00, 1.01, 1.02], [1.20, 1.21, 1.22], "more", False),
    ],
)
def test_what_counts_as_worse(bench, before: list[float], now: list[float], better: line.Better, worse: bool) -> None:
    assert bench({"fast": [a_line(before, better)]}, "--keep")[0] == 0
    code, said = bench({"fast": [a_line(now, better)]})
    assert (code, "WORSE: a step, time:" in said) == (int(worse), worse), said
    assert ("Nothing is worse" in said) is not worse


def test_one_that_fails_is_named_and_the_others_go_on(bench, tmp_path: Path) -> None:
    code, said = bench({"fast": NoLinesError("exit code 3: no memory"), "other": [a_line([1.5])]}, "--keep")
    assert code == 1
    assert "FAILED: fast: exit code 3: no memory" in said
    assert "1.500 floor" in said
    (path,) = (tmp_path / "kept").iterdir()
    table = json.loads(path.read_text())
    assert [entry["failed"] for entry in table["benchmarks"]] == ["exit code 3: no memory", ""]
    # What failed then is not compared with now.
    assert bench({"fast": [a_line([9.0])], "other": [a_line([1.5])]})[0] == 0


def test_another_machine_is_not_compared_with(bench, tmp_path: Path) -> None:
    bench({"fast": [a_line([1.0])]}, "--keep")
    (path,) = (tmp_path / "kept").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": {**MACHINE, "cpus": 64}}))
    code, said = bench({"fast": [a_line([5.0])]})
    assert code == 0
    assert "Cannot be compared" in said
    assert "cpus: 2 here, 64 there" in said
    # An older table of this machine is preferred to a newer one of another.
    older = {**json.loads(path.read_text()), "machine": MACHINE, "date": "2001-01-01T00:00:00+00:00"}
    kept.write(older, tmp_path / "kept" / "bench-full-20010101.json")
    code, said = bench({"fast": [a_line([5.0])]})
    assert (code, "WORSE" in said) == (1, True)


def test_a_table_is_compared_only_with_one_of_its_size_and_arguments(bench, tmp_path: Path) -> None:
    bench({"fast": [a_line([1.0])]}, "--keep", "--quick")
    assert "No table has been kept yet" in bench({"fast": [a_line([5.0])]})[1]
    (path,) = (tmp_path / "kept").iterdir()
    code, said = bench({"fast": [a_line([5.0])]}, "--against", str(path))
    assert code == 0
    assert "its size is 'quick'" in said
    table = json.loads(path.read_text())
    table["benchmarks"][0]["arguments"] = "--rounds 1"
    path.write_text(json.dumps({**table, "size": "full"}))
    code, said = bench({"fast": [a_line([5.0])]})
    assert code == 0
    assert "not compared: fast: it was run with '--rounds 1' then" in said


def test_each_benchmark_is_compared_with_the_last_table_that_has_it(bench, tmp_path: Path) -> None:
    days: list[dict[str, list[Line] | Exception]] = [
        {"fast": [a_line([1.0])], "other": [a_line([1.0])]},
        {"other": [a_line([3.0])]},
        {"other": NoLinesError("exit code 3")},
    ]
    for day, given in enumerate(days):
        bench(given, "--keep")
        (path,) = (tmp_path / "kept").glob("bench-full-2*T*.json")
        kept.write({**json.loads(path.read_text()), "date": f"2001-01-0{day + 1}"}, path.with_name(f"bench-{day}.json"))
        path.unlink()
    code, said = bench({"fast": [a_line([2.0])], "other": [a_line([2.0])]})
    assert code == 1
    assert "WORSE: a step, time: 1.000 -> 2.000" in said
    assert said.count("WORSE") == 1, "the other was slower in its last table"
    assert "the last table of each benchmark (2 tables; the newest is the table of 2001-01-02, commit" in said


def test_a_line_that_is_gone_is_named(bench) -> None:
    bench({"fast": [a_line([1.0]), a_line([1.0], name="another")]}, "--keep")
    assert "'another, time' is no longer measured" in bench({"fast": [a_line([1.0])]})[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--only", "fsat"], "no benchmark is called 'fsat'; there are fast"), (["--against", "nowhere"], "'nowhere'")],
)
def test_what_cannot_be_used_is_refused_before_anything_runs(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    never: Any = None
    assert main(["--out", str(tmp_path / "out"), *arguments], FAKES[:1], never, tmp_path) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_table_fits_eighty_columns(bench) -> None:
    long = line.line(
        "gradient space, 1543 M parameters with an uncommonly-long-name-of-a-benchmark-in-it", "tokens a second",
        "tokens/s", [123456.0, 123467.0], peer=Beside("another program", [99999.0], "12.34.56.dev7+gabcdef0123"),
        floor=Beside("28 B an element at the bandwidth of a copy", [1e6]), better="more",
    )  # fmt: skip
    _, said = bench({"fast": [long], "other": [a_line([0.0002])]})
    table = said[said.index("┏") : said.index("ratio: ours")]
    assert max(map(len, table.splitlines())) <= 80
    assert "2.0e-04" in table


def test_time_that_is_over_is_said(tmp_path: Path) -> None:
    outcomes = run(FAKES, "full", tmp_path, limit_s=9, total_s=0, launch=lambda *_: [], say=lambda text: None)
    assert [outcome.left_out for outcome in outcomes] == ["the 0 s were over"] * 2


def test_ctrl_c_keeps_what_is_there(tmp_path: Path) -> None:
    def interrupted(benchmark: Benchmark, *_: Any) -> list[Line]:
        if benchmark.name == "other":
            raise KeyboardInterrupt
        return [a_line([1.0])]

    outcomes = run([*FAKES, FAKES[0]], "full", tmp_path, limit_s=9, launch=interrupted, say=lambda text: None)
    assert [len(outcome.lines) for outcome in outcomes] == [1, 0, 0]
    assert [outcome.left_out for outcome in outcomes] == ["", "interrupted", "interrupted"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("print(3); raise SystemExit('no room')", "exit code 1: no room"),
        ("pass", "ended well, but wrote no lines"),
        ("import time; time.sleep(60)", "not done after 1 s"),
        ("open(sys.argv[2], 'w').write('[{}]')", "a record is no line of results"),
    ],
)
def test_scripts_in_processes_of_their_own(script: str, said: str, tmp_path: Path, monkeypatch) -> None:
    def command(self: Benchmark, size: str, lines: Path) -> list[str]:
        return [sys.executable, "-c", f"import sys; {script}", "--lines", str(lines)]

    monkeypatch.setattr(Benchmark, "command", command)
    with pytest.raises(NoLinesError, match=said):
        launch(FAKES[0], "full", tmp_path, 1.0 if "sleep" in script else 30.0)


def test_lines_are_read_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.bench.line.describe", lambda: dict(MACHINE))
    lines = [
        line.line("a", "time", "s", [1, 2, 4], peer=Beside("b", [2, 2, 2], "1.0"), floor=Beside("c", [1.0])),
        a_line([3.0]),
    ]
    line.write(tmp_path / "lines.json", lines)
    records = json.loads((tmp_path / "lines.json").read_text())
    assert line.read(records) == lines
    assert (lines[0].ratio, lines[0].spread, lines[0].ours) == (1.0, (0.75, 1.5), 2)
    assert records[0]["machine"] == MACHINE
    assert records[0].keys() >= {"commit", "versions", "date", "rounds", "spread"}


@pytest.mark.parametrize(
    ("ours", "beside"), [([], None), ([1.0], None), ([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([0.0], [1.0])]
)
def test_figures_that_give_no_ratio_are_refused(ours: list[float], beside: list[float] | None) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        line.line("a", "time", "s", ours, floor=None if beside is None else Beside("b", beside))


def test_the_driver_is_asked_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    class Run:
        returncode, stdout = 0, "NVIDIA H200, 570.1\nNVIDIA H200, 570.1\n"

    monkeypatch.setattr("benchmarks.bench.machine.subprocess.run", lambda *_, **__: Run())
    assert machine.nvidia_gpus() == [("NVIDIA H200", "570.1")] * 2
    assert machine.difference({**MACHINE, "gpus": ["A"]}, MACHINE) == "gpus: A here, none there"
    # Another driver or another load is the same machine.
    assert not machine.difference({**MACHINE, "driver": "1", "load": [9.0]}, MACHINE)


def test_every_registered_benchmark_takes_lines_and_its_own_arguments(tmp_path: Path) -> None:
    for benchmark in BENCHMARKS:
        found = importlib.util.find_spec(benchmark.module)
        assert found is not None, benchmark.module
        source = Path(str(found.origin)).read_text(encoding="utf-8")
        assert "lines.add_option(" in source, benchmark.module
        for size in ("full", "quick", "gpu"):
            for word in benchmark.command(size, tmp_path)[3:]:
                known = f'"{word}"' in source or word in ("--lines", "--standalone", "--nproc-per-node")
                assert known or not word.startswith("--"), f"{benchmark.name} has no {word}"
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)
    assert [each.name for each in chosen(BENCHMARKS, ["merge", "help"])] == ["help", "merge"]
