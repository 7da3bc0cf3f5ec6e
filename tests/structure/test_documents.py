"""The README and the pages in ``docs`` name only paths, modules, commands and options that exist."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ogpsa_cli.flags import flags_of
from pipelines.configs.commands import BY_NAME
from pipelines.recipes.recipe import shipped_names
from tests.structure.code import ROOT

FROM_THE_ROOT = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
DOCUMENTS = [*FROM_THE_ROOT, *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
PATH = re.compile(r"(?:ogpsa_cli|pipelines|data_registry|benchmarks|tests|docs|examples|containers|\.ci)/\S*")
DOTTED = re.compile(r"(?:ogpsa_cli|pipelines|data_registry|benchmarks|tests)(?:\.\w+)+")
# Every command has these.
COMMON = {"--config", "--set", "--dry-run", "--json-schema", "--verbose", "--help", "--help-all"}

# The pages speak of these options of other programs: of Slurm, of torchrun, of lm-eval, and of our scripts.
OTHERS = {
    "--signal", "--requeue", "--dependency", "--kill-on-invalid-dep", "--kill-on-bad-exit", "--gpus-per-node",
    "--gpus-per-task", "--max-restarts", "--shutdown-timeout", "--limit", "--log_samples", "--kills", "--full", "--cut",
    "--steps", "--rate", "--tree", "--index-url", "--nv", "--bind",
}  # fmt: skip


def find(name: str) -> Any:
    """The module, or the member of a module, that a dotted name means."""
    module, _, member = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(find(module), member)


def command_lines(text: str) -> list[list[str]]:
    """The calls of ogpsa in code blocks and in quoted words, from the command's name on."""
    blocks = FENCE.findall(text)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [word.replace("\n", " ") for word in QUOTED.findall(FENCE.sub("", text))]
    calls = []
    for line in lines:
        for call in re.findall(r"(?:^|[\s(;|])(?:ogpsa|-m ogpsa_cli) +([a-z][^;|>]*)", line):
            calls.append(shlex.split(call, comments=True))
    return calls


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = {word for word in QUOTED.findall(FENCE.sub("", text)) if PATH.fullmatch(word)}
    # What is written in capitals stands for a name that whoever adds something chooses.
    named |= set(re.findall(r"python ((?:benchmarks|tests)/[\w/.]+)", text))
    missing = [path for path in named if not (ROOT / re.sub(r"[A-Z]{3,}[^/]*$", "", path)).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    wrong = []
    for target, heading in LINK.findall(document.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        file = document.parent / target if target else document
        if not file.exists() or (heading and heading not in headings(file)):
            wrong.append(f"{target}#{heading}")
    assert not wrong


def headings(document: Path) -> set[str]:
    """The anchors that a page's headings have on the web."""
    lines = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_modules_and_their_members_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for name in {match.group() for word in QUOTED.findall(FENCE.sub("", text)) if (match := DOTTED.match(word))}:
        find(name)
    for name in re.findall(r"-m ((?:benchmarks|tests)(?:\.\w+)+)", text):
        find(name)
    for module, members in re.findall(r"^from (\S+) import (.+)$", text, re.MULTILINE):
        for member in members.split(", "):
            find(f"{module}.{member}")


def options_of(command: str) -> set[str]:
    """The spellings of a command's options."""
    flags = flags_of(BY_NAME[command].config_class())
    names = {name for flag in flags for name in flag.names if name.startswith("-")}
    return COMMON | names | {f"--no-{flag.field.replace('_', '-')}" for flag in flags if flag.kind == "switch"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_their_options_exist(document: Path) -> None:
    for name, *arguments in command_lines(document.read_text(encoding="utf-8")):
        assert name in BY_NAME, f"there is no command {name}"
        given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
        if name in ("run", "slurm") and arguments and re.fullmatch(r"[a-z][\w-]*", arguments[0]):
            assert arguments[0] in shipped_names()
        unknown = given - options_of(name)
        assert not unknown, f"{name} has no option {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_options_in_the_text_belong_to_a_command(document: Path) -> None:
    known = OTHERS.union(*map(options_of, BY_NAME))
    words = QUOTED.findall(FENCE.sub("", document.read_text(encoding="utf-8")))
    unknown = {
        option for word in words if word.startswith("--") for option in re.findall(r"--[a-z][\w-]*", word)
    } - known
    assert not unknown


def test_the_readme_names_all_pages_and_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {(ROOT / target).resolve() for target, _ in LINK.findall(text)}
    assert set(DOCUMENTS[1:]) <= linked
    table = text.partition("## Commands")[2].partition("\n## ")[0]
    first_cells = " ".join(re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE))
    assert set(BY_NAME) <= set(QUOTED.findall(first_cells))
