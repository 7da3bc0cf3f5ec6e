"""``ogpsa run`` finds out in its own process what is done, by each command's own rule; all else starts the command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from ogpsa_cli.launch import processes
from tests.cli.conftest import TESTBED_MODEL, Cli
from tests.cli.test_run import write

RECIPE = """\
description: Data, a model, figures and a report.
out: made
variables: {rows: 6, source: rows.jsonl, name: sums}
steps:
  data: {command: prepare-data, options: {source: "${source}", num-samples: "${rows}"}}
  model: {command: testbed}
  scored:
    command: evaluate
    options: {model: MODEL, suite: reference-loss, data: "${steps.data.out}", num-procs: 1, name: "${name}"}
  report: {command: report, options: {results: ["${steps.scored.out}"], title: "${name}"}}
"""
ROWS = [{"prompt": f"What is {n} and {n}?", "response": f"It is {2 * n}."} for n in range(9)]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that are started as processes; none of them runs, and each ends with code 3."""
    found: list[str] = []

    def start(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
        found.append(command[3])
        return subprocess.Popen(["sh", "-c", "exit 3"])

    monkeypatch.setattr(processes, "start_alone", start)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a finished chain, and the model that it reads, which tests copy."""
    from ogpsa_cli.__main__ import run
    from ogpsa_cli.launch.steps import StepRunner

    folder = tmp_path_factory.mktemp("finished")
    here = Path.cwd()
    shutil.copytree(TESTBED_MODEL, folder / "base")
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepRunner, "run", lambda self, arguments: run(arguments))
        try:
            Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
            assert run(["run", write(RECIPE.replace("MODEL", "base"))]) == 0
        finally:
            os.chdir(here)
    return folder


@pytest.fixture
def chain(finished: Path, cli: Cli, tmp_path: Path) -> Path:
    """A copy of the finished chain in the working directory."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_finished_chain_starts_no_process(chain: Path, cli: Cli, started: list[str]) -> None:
    alone = cli("report", "made/scored", "--title", "sums", "--out", "made/report")
    ran = cli("run", "recipe.yaml")
    assert (ran.code, started) == (0, [])
    assert ran.out.count("up to date: made/") == 4
    # What a command says of what is there is what it says when it is typed alone, in the same order.
    assert alone.out in ran.out
    assert ran.err.index("[1/4] data") < ran.err.index("next:  ogpsa ") < ran.err.index("[2/4] model")


def other_rows(chain: Path) -> None:
    (chain / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[::-1]))


def without_a_file(chain: Path) -> None:
    next((chain / "made/data").glob("data-*.arrow")).unlink()


def shorter_file(chain: Path) -> None:
    file = next((chain / "made/data").glob("data-*.arrow"))
    file.write_bytes(file.read_bytes()[:-8])


def zeros_in_rows(chain: Path) -> None:
    file = next((chain / "made/data").glob("data-*.arrow"))
    file.write_bytes(b"\0" * file.stat().st_size)


def other_state(chain: Path) -> None:
    file = chain / "made/data/state.json"
    file.write_text(file.read_text().replace("_data_files", "_atad_files"))


def broken_manifest(chain: Path) -> None:
    (chain / "made/data/manifest.json").write_text("{")


def gone(chain: Path) -> None:
    shutil.rmtree(chain / "made/data")


def not_an_artifact(chain: Path) -> None:
    (chain / "made/data/manifest.json").unlink()


def other_model(chain: Path) -> None:
    file = chain / "base/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def other_template(chain: Path) -> None:
    file = chain / "base/tokenizer_config.json"
    file.write_text(file.read_text() + "\n")


def results_changed(chain: Path) -> None:
    file = chain / "made/scored/results.json"
    file.write_text(file.read_text()[:-20])


def newer_manifest(chain: Path) -> None:
    file = chain / "made/scored/manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 99}))


@pytest.mark.parametrize(
    ("change", "command"),
    [
        (other_rows, "prepare-data"),
        (without_a_file, "prepare-data"),
        (shorter_file, "prepare-data"),
        (zeros_in_rows, "prepare-data"),
        (other_state, "prepare-data"),
        (broken_manifest, "prepare-data"),
        (gone, "prepare-data"),
        (not_an_artifact, "prepare-data"),
        (other_model, "evaluate"),
        (other_template, "evaluate"),
        (results_changed, "evaluate"),
        (newer_manifest, "evaluate"),
    ],
)
def test_whatever_changed_starts_the_command(
    change: Callable[[Path], None], command: str, chain: Path, cli: Cli, started: list[str]
) -> None:
    change(chain)
    ran = cli("run", "recipe.yaml")
    assert (ran.code, started) == (3, [command])
    # The command that is started says what is wrong; the one that only looked has said nothing.
    assert ran.err.count("error:") == 1


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (["--set", "rows=5"], "prepare-data"),
        (["--set", "steps.data.seed=4"], "prepare-data"),
        (["--set", "steps.scored.bootstrap=700"], "evaluate"),
        (["--set", "name=others"], "evaluate"),
        (["--set", "steps.report.title=T"], "report"),
        (["--set", "steps.scored.data=elsewhere"], "evaluate"),
        (["--overwrite"], "prepare-data"),
    ],
)
def test_other_options_start_the_command(
    options: list[str], command: str, chain: Path, cli: Cli, started: list[str]
) -> None:
    assert cli("run", "recipe.yaml", *options).code == 3
    assert started == [command]


def test_what_changes_no_result_starts_nothing(chain: Path, cli: Cli, started: list[str]) -> None:
    assert cli("run", "recipe.yaml", "--set", "steps.scored.num-procs=2").code == 0
    assert started == []


def test_it_needs_no_torch(chain: Path) -> None:
    code = """
import sys
from ogpsa_cli.__main__ import run
code = run(["run", "recipe.yaml"])
heavy = {"torch", "transformers", "datasets", "trl", "deepspeed", "peft", "accelerate"} & set(sys.modules)
sys.exit(f"{code} {sorted(heavy)}" if code or heavy else 0)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=chain, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("up to date: made/") == 4
