"""Help, schema, dry runs and the way options reach a command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ogpsa_cli import pages
from ogpsa_cli.command import given_options
from ogpsa_cli.flags import flags_of
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.commands import BY_NAME, COMMANDS
from pipelines.configs.common_options import COMMON
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.config import read_config_file, resolve
from tests.cli.conftest import Cli, run_process

NAMES = [entry.name for entry in COMMANDS]
HEAVY = ("torch", "transformers", "datasets", "deepspeed", "trl", "peft", "numpy", "pyarrow")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


# --- The overview ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_the_overview_lists_every_command_with_examples(cli: Cli, arguments: list[str]) -> None:
    outcome = cli(*arguments)
    assert outcome.code == 0
    for entry in COMMANDS:
        assert entry.name in outcome.out
        assert entry.summary in outcome.out
    assert "Examples:" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 100


def test_the_version_is_told(cli: Cli) -> None:
    outcome = cli("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("ogpsa ")


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in NAMES)])
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
from ogpsa_cli.__main__ import run
assert run({arguments!r}) == 0
print(sorted(set({HEAVY!r}) & set(sys.modules)), "pydantic" in sys.modules, file=sys.stderr)
"""

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    # The overview needs no configuration class; a command's help is derived from its own.
    assert result.stderr.splitlines()[-1] == f"[] {len(arguments) > 1}"


# --- A command's help --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained(cli: Cli, name: str) -> None:
    outcome = cli(name, "--help-all")
    assert outcome.code == 0
    page = pages.page_of(BY_NAME[name])
    for flag in page.flags:
        assert flag.help.endswith((".", ")")), f"--{flag.field} has no sentence"
        assert flag.names[0] in outcome.out
    for example in page.examples:
        assert example in outcome.out
    for common in ("--config", "--set", "--json-schema", "--verbose"):
        assert common in outcome.out


@pytest.mark.parametrize("name", NAMES)
def test_the_short_help_shows_the_common_options_alone(cli: Cli, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = cli(name, "--help").out
    page = pages.page_of(BY_NAME[name])
    common, fields = page.common(), {flag.field for flag in page.flags}
    assert set(COMMON[name]) <= fields, "the table names an option that the command has not"
    options = shown.partition("Examples:")[0]
    listed = set(re.findall(r"^│ (--[a-z-]+|[A-Z_.]+)(?=[ ,])", options, re.MULTILINE))
    assert listed - {"--config", "--set"} == {flag.names[0] for flag in common if flag.kind != "group"}
    assert f"ogpsa {name} --help-all" in shown
    # Two screens of a terminal at most, where all options of training take six.
    assert len(shown.splitlines()) <= 90


def test_every_command_says_which_options_are_common() -> None:
    assert set(COMMON) == set(NAMES)


def test_defaults_and_required_options_are_shown(cli: Cli) -> None:
    text = cli("train-sft", "--help-all").out
    required = text[text.index("Required") : text.index("╰")]
    assert all(name in required for name in ("MODEL", "--out", "--data"))
    assert "[default: 1e-06]" in text
    assert "--space gradient|update" in text
    assert "--set trainer.KEY=VALUE" in text


def test_help_fits_a_narrow_terminal_and_a_plain_one(tmp_path: Path) -> None:
    outcome = run_process("train-sft", "--help-all", cwd=tmp_path, env={"COLUMNS": "60", "PYTHONIOENCODING": "ascii"})
    assert outcome.code == 0
    panels = outcome.out[: outcome.out.index("Examples:")]
    assert max(map(len, panels.splitlines())) <= 60
    assert outcome.out.isascii()


# --- Options -----------------------------------------------------------------------------------------------------


def test_choices_of_numbers_are_numbers() -> None:
    flags = flags_of(TrainSftConfig)
    config = resolve(
        TrainSftConfig, flags=given_options(flags, {"model": "m", "data": "d", "out": "o", "zero": "2", "epochs": None})
    )
    assert config.zero == 2
    assert config.epochs == 3.0


def test_only_what_was_given_counts_as_given() -> None:
    given = {"model": "m", "reference": [], "offload": None, "overwrite": False, "seed": "0"}
    assert given_options(flags_of(BuildBasisConfig), given) == {"model": "m", "overwrite": False, "seed": "0"}


def test_flags_win_over_the_file_and_set_over_flags(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("source: rows.jsonl\nnum-samples: 1\nseed: 1\nsystem: hello\noverwrite: true\n")
    arguments = ["--config", file, "--num-samples", "2", "--seed", "2", "--set", "seed=3", "--no-overwrite"]
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a?", "output": "b"}\n')
    outcome = cli("prepare-data", *arguments, "--dry-run")
    assert outcome.code == 0, outcome.err
    shown = tmp_path / "shown.yaml"
    shown.write_text(outcome.out)
    values = read_config_file(shown)
    assert (values["num_samples"], values["seed"], values["system"]) == (2, 3, "hello")
    assert values["overwrite"] is False


def test_a_dry_run_shows_the_plan_and_makes_nothing(cli: Cli, made: Path, tmp_path: Path) -> None:
    arguments = ["--data", made / "safety", "--basis", made / "basis", "--max-steps", "3", "--out", "run"]
    outcome = cli("train-sft", made / "model", *arguments, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("# plan\n"), "the plan comes before the options"
    assert "steps" in outcome.out
    assert not (tmp_path / "run").exists()
    # What it prints is a configuration file.
    shown = tmp_path / "shown.yaml"
    shown.write_text(outcome.out)
    assert resolve(TrainSftConfig, file=shown).max_steps == 3


@pytest.mark.parametrize("name", NAMES)
def test_the_json_schema_is_complete(cli: Cli, name: str) -> None:
    outcome = cli(name, "--json-schema")
    assert outcome.code == 0
    schema = json.loads(outcome.out)
    assert schema["additionalProperties"] is False
    assert all("description" in field for field in schema["properties"].values())


def test_repeated_flags_make_a_list() -> None:
    flags = flags_of(BuildBasisConfig)
    names = {flag.names: flag.kind for flag in flags}
    assert names["--reference", "-r"] == "list"


def test_groups_are_reached_by_set_alone() -> None:
    columns = next(flag for flag in flags_of(PrepareDataConfig) if flag.field == "columns")
    assert columns.kind == "group"
    assert columns.names == ("--set columns.KEY=VALUE",)


# --- Completion and several processes ----------------------------------------------------------------------------


def complete(words: str, tmp_path: Path) -> list[str]:
    env = {"_OGPSA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-c", "from ogpsa_cli.__main__ import main; main()"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, cwd=tmp_path)
    return result.stdout.split()


def test_the_shell_completes_commands_and_options(tmp_path: Path) -> None:
    assert complete("ogpsa tr", tmp_path) == ["train-sft", "train-dpo", "train-npo"]
    assert complete("ogpsa train-sft --lea", tmp_path) == ["--learning-rate"]


def test_other_ranks_of_a_lone_command_have_nothing_to_do(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    outcome = cli("inspect", "whatever")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
