"""The tool does what its golden record says, and the comparison notices what does not."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest

from tests.golden import record
from tests.golden.comparison import compare_artifacts, compare_texts
from tests.golden.digests import Record
from tests.golden.workspace import ROOT

RUN = "ranks/dpo-zero3-update"
WEIGHT = "model/model.safetensors model.layers.1.mlp.up_proj.weight"


def compare(part: str) -> None:
    command = [sys.executable, "-m", "tests.golden", "compare", "--only", part]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture
def ranks() -> dict[str, Record]:
    return record.read_numbers(record.DIRECTORY, "ranks")


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.slow) if part == "plans" else part for part in record.TEXTS]
)
def test_texts_are_those_of_the_record(part: str) -> None:
    compare(part)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("part", record.NUMBERS)
def test_numbers_are_those_of_the_record(part: str) -> None:
    compare(part)


def test_another_line_of_text_is_noticed() -> None:
    recorded = record.read_texts(record.DIRECTORY, "help")
    changed = {**recorded, "train-sft": recorded["train-sft"].replace("[default: 1e-06]", "[default: 1e-05]")}
    (difference,) = compare_texts(recorded, changed)
    assert "-│ --learning-rate X" in difference
    assert "+│ --learning-rate X" in difference
    assert compare_texts(recorded, dict(recorded)) == []


def test_texts_that_are_gone_or_new_are_noticed() -> None:
    assert compare_texts({"a": "x", "b": "y"}, {"b": "y", "c": "z"}) == [
        "a: recorded, and not there now",
        "c: there now, and not recorded",
    ]


@pytest.mark.parametrize("exact", [True, False])
def test_one_record_is_equal_to_itself(exact: bool, ranks: dict[str, Record]) -> None:
    assert compare_artifacts(ranks, copy.deepcopy(ranks), exact=exact) == []


@pytest.mark.parametrize(("relative", "exact", "noticed"), [(1e-7, True, 1), (1e-7, False, 0), (1e-4, False, 1)])
def test_a_tensor_is_as_near_as_the_change_of_it_says(
    relative: float, exact: bool, noticed: int, ranks: dict[str, Record]
) -> None:
    changed = copy.deepcopy(ranks)
    shape, dtype, total, norm, product, change, _ = ranks[RUN][WEIGHT].split()
    moved = float(product) + relative * float(change)
    changed[RUN][WEIGHT] = f"{shape} {dtype} {total} {norm} {moved:.10g} {change} 0123456789"
    differences = compare_artifacts(ranks, changed, exact=exact)
    assert len(differences) == noticed
    assert all(difference.startswith(f"{RUN}: {WEIGHT}: recorded {shape}") for difference in differences)


@pytest.mark.parametrize(("factor", "exact", "noticed"), [(1 + 1e-9, True, 1), (1 + 1e-9, False, 0), (1.01, False, 1)])
def test_another_figure_is_noticed(factor: float, exact: bool, noticed: int, ranks: dict[str, Record]) -> None:
    changed = copy.deepcopy(ranks)
    changed[RUN]["metrics.jsonl 1"]["loss"] *= factor
    differences = compare_artifacts(ranks, changed, exact=exact)
    assert len(differences) == noticed
    assert all(difference.startswith(f"{RUN}: metrics.jsonl 1 loss: recorded ") for difference in differences)


@pytest.mark.parametrize("exact", [True, False])
def test_files_that_are_gone_and_other_words_are_noticed(exact: bool, ranks: dict[str, Record]) -> None:
    changed = copy.deepcopy(ranks)
    changed[RUN]["files"].remove("layers.parquet")
    del changed["ranks/sft-zero2-update"]["metrics.jsonl 0"]
    changed["ranks/basis-zero3"]["manifest kind"] = "run"
    assert len(compare_artifacts(ranks, changed, exact=exact)) == 3
