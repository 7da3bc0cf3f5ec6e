"""What is left out of imports is there once it is called, and nothing else is otherwise than it was."""

from __future__ import annotations

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
