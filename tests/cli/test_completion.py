"""What shells ask with the Tab key, by the protocol of each, and what they are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_registry.registry.listing import list_entries
from ogpsa_cli import completion
from ogpsa_cli.__main__ import run
from ogpsa_cli.flags import flags_of
from pipelines.configs.commands import BY_NAME
from pipelines.recipes.recipe import shipped_names

HEAVY = ("torch", "transformers", "datasets", "deepspeed", "numpy", "pyarrow", "matplotlib")


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """A function from the words of a line, the last of which is being typed, to the lines that a shell reads."""

    def asked(*words: str, shell: str = "bash") -> list[str]:
        monkeypatch.setenv("_OGPSA_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("TERMINAL_WIDTH", "40")
        if shell == "bash":
            monkeypatch.setenv("COMP_WORDS", "\n".join(["ogpsa", *words]))
            monkeypatch.setenv("COMP_CWORD", str(len(words)))
        else:
            monkeypatch.setenv("_TYPER_COMPLETE_ARGS", " ".join(["ogpsa", *words]))
            monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        capsys.readouterr()
        assert run([]) == 0
        out, error = capsys.readouterr()
        assert error == ""
        return [line for line in out.splitlines() if line]

    return asked


# What bash is told about lines, the last word of which is being typed.
LINES = {
    ("tr",): ["train-sft", "train-dpo", "train-npo"],
    ("train-sft", "--pre"): ["--precision", "--preset"],
    ("train_sft", "--pres"): ["--preset"],
    ("train-sft", "--learning_rate", "1", "--pres"): ["--preset"],
    ("train-sft", "MODEL", "--precision", ""): ["fp32", "bf16"],
    ("train-sft", "--preset", "r"): ["recommended", "rank-1"],
    ("train-sft", "--preset", "=", "r"): ["recommended", "rank-1"],
    ("evaluate", "--system", "'a = b'", "--suite", "=", "gsm8k", "--suite", "=", "xs"): ["xstest", "xstest-shipped"],
    ("merge", "--method", "dare"): ["dare-linear"],
    ("run", "pap"): ["paper"],
    ("slurm", "lora"): ["lora-24gb"],
    ("prepare-data", "halueval-"): ["halueval-test", "halueval-train", "halueval-validation"],
    ("prepare-data", "--format", "share"): ["sharegpt"],
    ("prepare-data", "./dat"): [],
    ("sample", "--data", "lookalikes-t"): ["lookalikes-train"],
    ("evaluate", "--judge-format", "ll"): ["llama-guard"],
    ("judge", "--judge", "re"): ["refusal"],
    ("train-sft", "--data", "d"): [],
    ("no-such-command", "x"): [],
}


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_bash_is_told_names_and_values(ask, words: tuple[str, ...]) -> None:
    assert ask(*words) == LINES[words]


def test_every_name_of_the_registries_is_there(ask) -> None:
    data = {entry.name for entry in list_entries() if entry.task != "prompts"}
    assert set(ask("prepare-data", "")) == data
    assert set(ask("run", "")) == set(shipped_names())
    assert {"xstest", "safety", "reference-loss"} <= set(ask("evaluate", "--suite", ""))


def test_every_choice_of_every_option_is_told(ask) -> None:
    for command in map(BY_NAME.get, ("prepare-data", "build-mask", "train-sft", "merge")):
        for flag in flags_of(command.config_class()):
            if flag.choices and (command.name, flag.field) not in completion.NAMES:
                assert ask(command.name, flag.names[0], "") == list(flag.choices), f"{command.name} {flag.field}"


def test_tables_name_options_that_exist() -> None:
    for command, field in completion.NAMES:
        assert field in BY_NAME[command].config_class().model_fields


@pytest.mark.parametrize("name", ["train-sft", "prepare-data", "evaluate", "merge"])
def test_other_shells_get_one_line_for_each_value(ask, name: str) -> None:
    plain = ask(name, "--")
    fish = ask(name, "--", shell="fish")
    assert [line.partition("\t")[0] for line in fish] == plain
    assert all(len(line.partition("\t")[2]) <= 60 for line in fish)
    zsh = ask(name, "--", shell="zsh")
    assert len(zsh) == len(plain)
    # The whole stands between single quotes, and each explanation between double ones.
    assert "\n".join(zsh).count("'") == 2
    assert all(line.count('"') == 4 for line in zsh)


def test_where_ogpsa_knows_nothing_shells_offer_files(ask) -> None:
    assert ask("train-sft", "--data", "d", shell="zsh") == ["_files"]
    assert ask("train-sft", "--data", "d", shell="fish") == []


def test_completion_imports_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
import sys
from ogpsa_cli.__main__ import run
assert run([]) == 0
print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    asks = {"_OGPSA_COMPLETE": "complete_bash", "COMP_WORDS": "ogpsa\nevaluate\nMODEL\n--suite\nx", "COMP_CWORD": "4"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **asks}
    )
    assert result.stdout.split() == ["xstest", "xstest-shipped"]
    assert result.stderr.splitlines()[-1] == "[]"
