"""What is left out of imports is there once it is called, and nothing else is otherwise than it was."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from pipelines.engine import unneeded


def test_a_matching_is_found_by_scipy_when_it_is_asked_for() -> None:
    module: Any = ModuleType("losses")
    unneeded._when_called(module)
    rows, columns = module.linear_sum_assignment([[4.0, 1.0], [2.0, 8.0]], maximize=False)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
    kept = module.linear_sum_assignment
    unneeded._when_called(module)
    assert module.linear_sum_assignment is kept


def test_a_model_is_unwrapped_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from accelerate.utils import other
    from transformers import utils

    before = utils.is_scipy_available
    monkeypatch.setattr(other, "is_deepspeed_available", other.is_deepspeed_available)
    unneeded.leave_out()
    assert utils.is_scipy_available is before
    inner = torch.nn.Linear(2, 2)
    assert other.extract_model_from_parallel(torch.nn.DataParallel(inner)) is inner
    assert other.is_deepspeed_available() == ("deepspeed" in sys.modules)

    # An engine can only be there after its library was imported, and is then unwrapped.
    engine = type("DeepSpeedEngine", (torch.nn.Module,), {})
    monkeypatch.setitem(sys.modules, "deepspeed", ModuleType("deepspeed"))
    monkeypatch.setattr(sys.modules["deepspeed"], "DeepSpeedEngine", engine, raising=False)
    wrapped = engine()
    wrapped.module = inner
    assert other.extract_model_from_parallel(wrapped) is inner


def test_the_names_of_models_are_those_that_transformers_would_have_read_again() -> None:
    program = """
import sys
from pathlib import Path
from pipelines.engine.unneeded import leave_out, names_within
import transformers
from transformers.utils import import_utils
read = import_utils.define_import_structure
assert "transformers.models" not in sys.modules
folders = import_utils.create_import_structure_from_path
before = folders.cache_info().misses
leave_out()
assert import_utils.define_import_structure is read
# The folders of all models were not read a second time.
assert before > 300 and folders.cache_info().misses - before < 10, (before, folders.cache_info())
folder = Path(transformers.__file__).parent / "models"
again = read.__wrapped__(folder / "__init__.py")
assert len(again) > 3 and again == names_within(read(folder, prefix="models"), "models.")
import transformers.models as models
assert models.LlamaForCausalLM is transformers.LlamaForCausalLM
assert {name for modules in again.values() for names in modules.values() for name in names} <= set(dir(models))
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_only_what_is_below_is_taken_and_what_is_empty_is_left_out() -> None:
    structure = {"none": {"models.a.b": {"B"}, "modelsx": {"X"}, "other": {"O"}}, "torch": {"other.c": {"C"}}}
    assert unneeded.names_within(structure, "models.") == {"none": {"a.b": {"B"}}}


def test_trl_finds_packages_as_before() -> None:
    program = """
import importlib.metadata
import sys
from pipelines.engine.unneeded import leave_out
before, calls = importlib.metadata.packages_distributions, []
def counted():
    calls.append(1)
    return before()
importlib.metadata.packages_distributions = counted
leave_out()
assert "trl" not in sys.modules
leave_out(with_trl=True)
assert importlib.metadata.packages_distributions is counted
assert not calls
from trl import import_utils
for package in ("transformers", "peft", "accelerate", "datasets"):
    version = import_utils._is_package_available(package, return_version=True)
    assert version == (True, importlib.metadata.version(package)), package
assert not calls
# A package whose distribution has another name: that of what is installed under it.
assert import_utils._is_package_available("yaml", return_version=True) == (True, importlib.metadata.version("PyYAML"))
assert import_utils._is_package_available("no_such_package", return_version=True) == (False, "N/A")
assert calls == [1]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_distributions_are_those_of_all_that_is_installed() -> None:
    everything = importlib.metadata.packages_distributions()
    found = unneeded.Distributions(lambda: everything)
    assert found["torch"] == ["torch"]
    with pytest.raises(KeyError):
        found["no_such_package"]
    assert "yaml" in found
    assert "no_such_package" not in found
    assert dict(found) == dict(everything)
