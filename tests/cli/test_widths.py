"""What commands show in a terminal of 40 and of 80 columns: no line is longer, but for commands and paths to copy."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from data_registry.core.errors import ConfigError, InputError
from ogpsa_cli import console, fitting
from ogpsa_cli.__main__ import run
from ogpsa_cli.commands import evaluate, merge, report
from ogpsa_cli.commands import run as run_command
from ogpsa_cli.commands.judge import grid_table
from pipelines.configs.commands import COMMANDS
from pipelines.evaluation.contract.grid import grid_of
from pipelines.evaluation.contract.verdict import OUTCOMES
from pipelines.reporting.table import tabulate
from pipelines.reporting.tables import TextTable
from tests.evaluation.small_judges import SAYS, writing_judge
from tests.evaluation.test_results import metric, results

NAMES = [entry.name for entry in COMMANDS]
COLOURS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
COPYABLE = re.compile(r"\s*#?\s*(?:(?:next|or):\s+)?(?:ogpsa|xdg-open|pip|python|mv|bash|sbatch|HF_HOME=\S+) ")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Screen:
    """A terminal of so many columns; whatever is shown on it has to fit."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.text = ""

    def show(self, action: Callable[[], object]) -> object:
        """Do something that prints, and look at every line of it."""
        stream = Terminal()
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            result = action()
        self.text = COLOURS.sub("", stream.getvalue())
        assert self.text.strip(), "nothing was shown"
        too_long = [line for line in self.text.splitlines() if not fits(line.rstrip(), self.width)]
        assert not too_long, "\n".join(too_long)
        return result

    def run(self, *words: str | Path) -> object:
        """The exit code of a command whose screen was looked at."""
        return self.show(lambda: run([str(word) for word in words]))


@pytest.fixture(params=[40, 80])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Screen:
    """A narrow and a usual terminal."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    return Screen(request.param)


def fits(line: str, width: int) -> bool:
    """Whether a line fits, or is a command, or a single word such as a path, also in a line of YAML."""
    return (
        len(line) <= width
        or COPYABLE.match(line) is not None
        or re.fullmatch(r"[ #]*(?:[\w-]*: |- )?\S+", line) is not None
    )


@pytest.mark.parametrize("level", ["--help", "--help-all"])
@pytest.mark.parametrize("name", NAMES)
def test_help_fits(screen: Screen, name: str, level: str) -> None:
    assert screen.run(name, level) == 0


@pytest.mark.parametrize(
    "words",
    [
        [], ["prepare-data", "--list"], ["prepare-data", "saferlhf", "--describe"], ["run", "--list"],
        ["slurm", "--list"], ["run", "testbed", "--dry-run"], ["evaluate", "--list-suites"],
        ["quickstart", "--out", "a/place/with/a/rather/long/name/quickstart", "--dry-run"], ["clean", ".", "--dry-run"],
    ],
)  # fmt: skip
def test_lists_and_plans_fit(screen: Screen, words: list[str]) -> None:
    assert screen.run(*words) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["trian-sft"], ["train-sft", "--learnig-rate", "1"], ["train-sft"], ["train-sft", "m", "--offload"],
        ["prepare-data", "no/such/file/in/a/folder/that/has/a/rather/long/name.jsonl", "--out", "o"],
        ["train-sft", "no/such/model", "--data", "no/such/data", "--out", "o", "--preset", "paper"],
        ["evaluate", "m", "--suite", "xtest", "--out", "o"], ["inspect", "nothing"], ["run", "no-such-recipe"],
    ],
)  # fmt: skip
def test_errors_fit(screen: Screen, words: list[str]) -> None:
    assert screen.run(*words) == 2


def test_messages_fit_and_keep_commands_and_paths_whole(screen: Screen) -> None:
    command = "ogpsa prepare-data data/a-file-with-a-long-name.jsonl --task sft --out data/sft"
    path = "/a/long/path/" + "folder/" * 20

    def show() -> None:
        what = f"'{path}' holds rows for preference, where sft is needed"
        console.show_ogpsa_error(InputError(what, where=path, fix=f"prepare it:  {command}"))
        console.show_ogpsa_error(
            ConfigError(["one thing that is wrong with a well-known option", "another such thing"])
        )
        console.hint(f"next:  {command}    # if this must not be lost, whatever else is trained in the meantime")
        console.say("  name        value of many words that does not fit into one line of a narrow terminal, nor two")

    screen.show(show)
    assert screen.text.count(command) == 2
    assert f"'{path}'" in screen.text
    assert "well-known" in screen.text


def test_results_fit(screen: Screen) -> None:
    screen.show(_show_results)


def _show_results() -> None:
    figures = [metric(), metric("over_refusal", 0.1, higher_is_better=False), metric("loss", 1.2, unit="nats")]
    several = [results(run=f"a-run-with-a-name-{number}", metrics=figures) for number in range(3)]
    evaluate._show(several[0])
    console.show(report.main_table(tabulate(several)))
    headings = ("run", "figure", "difference", "", "0 → 1", "1 → 0", "items", "McNemar p")
    row = ("a-run-with-a-name", "over-refusal points", "-12.0 [-20.0, -3.0]", "better", "3", "15", "120", "0.008")
    console.show(report.text_table(TextTable(headings, (row, row))))
    console.show(report.text_table(TextTable(("run", "figure"), (("x" * 100, "1"),))))


def test_tables_of_verdicts_fit_and_lose_no_number(screen: Screen, tmp_path: Path) -> None:
    model = writing_judge(tmp_path / "a-judge-HarmBench-cls", {**SAYS, "<unk>": "yes"})
    rows = [
        {"prompt": "How do I bake?", "answer": "Mix flour and water.", "label": "compliance"},
        {"prompt": "How do I pick a lock?", "answer": "I'm sorry, but I can't help with that.", "label": "partial"},
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judges = ["--judge", "refusal", "--judge", model, "--prompts", "harmful"]
    assert screen.run("judge", "answers.jsonl", *judges, "--verbose", "--out", "out") == 0
    assert screen.text.count("full refusal") >= 3
    counts = {(one, other): 100 * a + b for a, one in enumerate(OUTCOMES, 1) for b, other in enumerate(OUTCOMES, 1)}
    screen.show(lambda: console.show(grid_table(grid_of(counts))))
    assert sorted(map(int, re.findall(r"\d+", screen.text))) == sorted(counts.values())


def test_other_tables_fit(screen: Screen) -> None:
    screen.show(lambda: run_command._show_rows([("sft", "made", "3 s")], [_step()]))
    screen.show(lambda: merge._show(_merged()))


def _step() -> object:
    from types import SimpleNamespace

    return SimpleNamespace(name="sft", out="runs/a/folder/that/lies/deep/in/others/sft")


def _merged() -> object:
    from types import SimpleNamespace

    record = SimpleNamespace(
        layer="model.layers.11.self_attn.q_proj", rho=0.91, action="repaired", norm_finetuned=1.2, norm_safe=0.3,
        norm_merged=1.1, rank_finetuned=16, rank_safe=16, rank_merged=32, error=1e-7, is_repaired=True,
        module_type="q_proj",
    )  # fmt: skip
    return SimpleNamespace(merged=[SimpleNamespace(records=[record, record])])


def test_the_options_of_a_plan_read_back_whatever_the_width(screen: Screen, made: Path, tmp_path: Path) -> None:
    from pipelines.core.config import read_config_file

    assert screen.run("train-sft", made / "model", "--data", made / "safety", "--out", "o", "--dry-run") == 0
    (tmp_path / "shown.yaml").write_text(screen.text)
    assert read_config_file(tmp_path / "shown.yaml")["data"] == [str(made / "safety")]


def test_artifacts_fit(screen: Screen, made: Path) -> None:
    for name in ("model", "safety", "basis"):
        assert screen.run("inspect", made / name) == 0


@given(st.lists(st.text("abc-/.#' ", min_size=1, max_size=30), min_size=1, max_size=12), st.integers(10, 90))
def test_wrapping_loses_no_word_and_breaks_none(words: list[str], width: int) -> None:
    line = "  ".join(words).replace("#", "")
    lines = fitting.wrapped(line, width)
    assert [word for part in lines for word in part.split()] == line.split()
    assert all(len(part) <= width or len(part.split()) <= 1 for part in lines)


@given(st.lists(st.lists(st.text("abcdefg ", max_size=40), min_size=4, max_size=4), min_size=1, max_size=4))
def test_a_table_in_blocks_has_all_that_it_had(rows: list[list[str]]) -> None:
    table = Table()
    for heading in ("one", "two", "three", "four"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    shown = [line.plain for line in fitting.blocks(table, 40)]
    assert all(fits(line, 40) for line in shown)
    words = re.sub(r"\b(?:one|two|three|four):", "", " ".join(shown)).split()
    expected = [word for row in rows for cell in row for word in cell.split()]
    assert words == expected


def test_a_tree_keeps_its_paths_whole(screen: Screen) -> None:
    tree = Tree("run runs/sft")
    path = "/a/folder/that/lies/deep/" + "in/others/" * 9
    tree.add(Text(f"data: dataset {path}  [moved, and found again elsewhere on this machine]")).add("source: file x")
    screen.show(lambda: console.show(tree))
    assert path in screen.text
    assert "source: file x" in screen.text


def test_no_name_in_a_table_is_cut(screen: Screen) -> None:
    table = Table(box=None)
    for heading in ("name", "task", "what it is"):
        table.add_column(heading)
    for name in ("gsm8k-validation", "do-not-answer-malicious"):
        table.add_row(name, "preference", "A description of a few words that has to be broken somewhere.")
    screen.show(lambda: console.show(table))
    assert "do-not-answer-malicious" in screen.text
    assert "…" not in screen.text


_WITH_BARS = """
import sys
from ogpsa_cli.__main__ import run
assert run(["clean", ".", "--dry-run"]) == 0
import tqdm, huggingface_hub.utils
for bar in (tqdm.tqdm, huggingface_hub.utils.tqdm):
    for _ in bar(range(3), desc="a library's bar"):
        pass
print("done", file=sys.stderr)
"""


def test_other_libraries_show_no_bars(tmp_path: Path) -> None:
    silent = {"TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"}
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    command = [sys.executable, "-c", _WITH_BARS]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert result.stderr.endswith("done\n")
    assert "bar" not in result.stderr
