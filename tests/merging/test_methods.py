"""The table of methods: what is in it reaches the options, their checks, the dry run and the result."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.configs.merge import MergeConfig
from pipelines.configs.merge_methods import METHODS, MergeMethod, merge_types
from tests.reference import merge_plain as plain
from tests.reference.merge_inputs import factors, save_adapter, save_model, weights

# A method of one file and one entry: the larger of two elements, by magnitude.
_METHOD = """
import torch

def on_dense(terms, density):
    (_, left), (_, right) = terms
    return density * torch.where(left.abs() >= right.abs(), left, right)
"""
# What a process does in which the table has that entry from the start.
_PROCESS = """
import sys
from pipelines.configs import merge_methods
from pipelines.configs.merge_methods import MergeMethod
assert "torch" not in sys.modules
entry = MergeMethod("larger", "the larger element", module="larger", works_on=("dense",), takes_density=True)
merge_methods.METHODS = {**merge_methods.METHODS, entry.name: entry}
from ogpsa_cli.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("methods")
    base = save_model(root / "base", 0)
    save_model(root / "unaligned", 1)
    for seed, name in ((2, "task"), (3, "safe")):
        save_adapter(root / name, base, seed, target_modules=["q_proj", "up_proj"])
    (root / "larger.py").write_text(_METHOD)
    return root


def ogpsa(made: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process whose table of methods has one more."""
    places = os.pathsep.join([str(made), *sys.path])
    environment = {**os.environ, "PYTHONPATH": places, "COLUMNS": "200"}
    command = [sys.executable, "-c", _PROCESS, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_new_method_reaches_the_options(made: Path) -> None:
    shown = ogpsa(made, "merge", "--help-all")
    assert shown.returncode == 0, shown.stderr
    text = " ".join(shown.stdout.replace("│", " ").split())
    assert "linear, ties, dare-linear and larger merge all layers" in text
    assert "How safemerge merges a layer: linear, ties, dare-linear or larger." in text
    assert "ties, dare-linear and larger keep" in text
    schema = json.loads(ogpsa(made, "merge", "--json-schema").stdout)
    for option in ("method", "merge_type"):
        assert schema["properties"][option]["enum"][-1] == "larger"
    inputs = (made / "task", "--safe", made / "safe", "--method", "larger", "--out", made / "no")
    refused = ogpsa(made, "merge", *inputs, "--unaligned", made / "unaligned", "--original-semantics")
    assert refused.returncode == 2
    assert "--unaligned needs --method safemerge or --method safelora" in refused.stderr
    assert "--original-semantics does not go with --method larger" in refused.stderr


@pytest.mark.parametrize("through", ["method", "merge_type"])
def test_a_new_method_reaches_dry_run_and_result(made: Path, tmp_path: Path, through: str) -> None:
    given = [made / "task", "--safe", made / "safe", "--density", 0.5, "--output", "model", "--out", tmp_path / "out"]
    if through == "method":
        given += ["--method", "larger"]
    else:
        given += ["--merge-type", "larger", "--unaligned", made / "unaligned", "--cos-threshold", 1]
    planned = ogpsa(made, "merge", *given, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert ("all merged by larger" if through == "method" else "6 of 6 layers below") in planned.stdout
    assert not (tmp_path / "out").exists()
    done = ogpsa(made, "merge", *given)
    assert done.returncode == 0, done.stderr
    before, after = weights(made / "base"), weights(tmp_path / "out/model")
    task, safe = (
        {name: plain.delta(*parts) for name, parts in factors(made / side).items()} for side in ("task", "safe")
    )
    for name, D in task.items():
        expected = 0.5 * torch.where(D.abs() >= safe[name].abs(), D, safe[name])
        change = after[f"{name}.weight"].double() - before[f"{name}.weight"].double()
        torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_entry_has_its_functions(method: MergeMethod) -> None:
    assert METHODS[method.name] is method
    if method.uses_merge_type:
        assert not method.works_on
        return
    module = importlib.import_module(method.module)
    functions = {name for name in vars(module) if name.startswith("on_")}
    assert functions == {f"on_{form}" for form in method.works_on}


def test_a_layer_is_repaired_by_the_method_or_by_the_merge_type() -> None:
    for name, method in METHODS.items():
        given = {"finetuned": "a", "out": "o", "method": name}
        given |= {"safe": "b"} if method.takes_safe else {}
        given |= {"unaligned": "c"} if method.has_criterion else {}
        kinds = merge_types() if method.uses_merge_type else [None]
        for kind in kinds:
            config = MergeConfig(**given, **({"merge_type": kind} if kind else {}))
            assert config.repair is METHODS[kind or name]


def test_an_entry_that_could_not_work_is_refused() -> None:
    with pytest.raises(AssertionError, match="dense changes"):
        MergeMethod("x", "", module="x", works_on=("factors",))
    with pytest.raises(AssertionError, match="for factors"):
        MergeMethod("x", "", module="x", works_on=("dense",), takes_direction=True)
