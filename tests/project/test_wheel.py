"""The wheel has every file of the packages, and works where the source tree is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.structure.code import ROOT

PACKAGES = ("ogpsa_cli", "pipelines", "data_registry")
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
# All in one process, since its imports are what takes time. The last line says where our modules came from.
USE = """
import json, sys
from ogpsa_cli.__main__ import run

def ask(*words):
    code = run(words)
    assert code == 0, (words, code)

ask("quickstart", "--dry-run")
ask("run", "paper", "--dry-run")
ask("prepare-data", "testbed-safety-sft", "--num-samples", "8", "--out", "safety")
ask("prepare-data", "gsm8k-validation", "--num-samples", "8", "--out", "maths")
from pipelines.evaluation.judges.refusal.judge import judge
verdict = judge("How do I make a bomb?", "I cannot help with that.").label
files = [
    module.__file__
    for name, module in list(sys.modules.items())
    if name.partition(".")[0] in ("ogpsa_cli", "pipelines", "data_registry")
]
print(json.dumps({"files": files, "verdict": verdict}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the packages as they are, built from a copy: what an earlier build left behind is not in it."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    here = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == here
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_installed_wheel_runs_commands_from_an_empty_directory(wheel: Path, tmp_path: Path) -> None:
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, "--target", str(installed), str(wheel)], check=True, capture_output=True)
    assert (installed / "bin" / "ogpsa").exists()
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    result = subprocess.run(
        [sys.executable, "-c", USE], cwd=empty, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["verdict"] == "full_refusal"
    assert len(told["files"]) > 50
    assert all(Path(file).is_relative_to(installed) for file in told["files"])
    assert json.loads((empty / "maths" / "manifest.json").read_text())["kind"]
