"""The study of a real model, on a random one of two layers: whole runs, the choice of a point, and what is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("gguf", reason="GGUF files need the extra 'gguf'")

from benchmarks.studies.smollm2 import __main__ as study
from benchmarks.studies.smollm2 import running
from benchmarks.studies.smollm2.figures import keep, show
from benchmarks.studies.smollm2.materials import Materials
from benchmarks.studies.smollm2.plan import Plan, Run, read_plan, stage_runs
from pipelines.commands import train_sft
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.evaluation.contract.results import read_results
from tests.importing.small_gguf import small_model, vocabulary, write_gguf

SMALL = {
    "rows": 6, "own": 2, "lookalikes": 3, "reference_samples": 2, "steps": {"sft": 2, "dpo": 1, "sft-dpo": 1},
    "looks": [1], "alphas": [0.5], "max_new_tokens": 2,
    "validation": {"suites": ["hh-validation", "lookalikes-validation", "reference-loss"], "items": 2, "rows": 2},
    "test": {"suites": ["xstest-shipped", "reference-loss", "divergence"], "items": 2, "rows": 2},
}  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    model = small_model(len(vocabulary()[0]))
    model.config.max_position_embeddings = 512
    write_gguf(tmp_path / "small.gguf", model)
    shipped = read_plan()
    settings = {**shipped.settings, "batch-size": 2, "max-length": 512}
    stages = {
        "small": {"task": "sft", "methods": ["naive"]},
        "chain": {"task": "sft-dpo", "methods": ["recommended"]},
        "adapters": {"task": "sft", "methods": ["LoRA"]},
    }
    values = (
        shipped.model_dump() | SMALL | {"model": str(tmp_path / "small.gguf"), "settings": settings, "stages": stages}
    )
    return Plan.model_validate(values)


def test_every_planned_run_is_one_that_the_commands_would_take() -> None:
    plan = read_plan()

    class Named:
        model = Path("model")

        def safety(self, task: str) -> Path:
            return Path(task)

        def fill(self, options: dict[str, object]) -> dict[str, object]:
            count = {"@own": 3}

            def paths(value: list[str]) -> list[str]:
                return [f"{name}-{n}" for name in value for n in range(count.get(name, 1))]

            return {name: paths(value) if isinstance(value, list) and name == "anchor" else value
                    for name, value in options.items()}  # fmt: skip

    for stage in plan.stages:
        for run in stage_runs(plan, stage):
            for kind, task, at in running._parts(run, plan):
                config = running._config(kind, task, run, plan, Named(), Path("model"), Path("out"))  # type: ignore[arg-type]
                assert isinstance(config, TrainDpoConfig if task == "dpo" else TrainSftConfig)
                assert all(step <= run.steps for step in at)
                assert config.max_steps == run.steps


def test_runs_are_measured_chosen_and_kept(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "read_plan", lambda: plan)
    study.run_stages(tmp_path / "work", ["small", "chain", "adapters"])
    naive, chain, lora = (
        tmp_path / "work" / "runs" / run.name for stage in plan.stages for run in stage_runs(plan, stage)
    )
    record = json.loads((naive / "record.json").read_text())
    assert {path.name for path in (naive / "results").iterdir()} >= {"step-1", "step-2", "mixed-0.5", "end-test"}
    assert record["chosen"] == running.choose(naive / "results", plan)
    assert not (naive / "models").exists()
    at_end = json.loads((chain / "record.json").read_text())["chosen"] == "step-1"
    # Of a chain only the point that was chosen is tested.
    assert {path.name for path in (chain / "results").iterdir()} == {
        "step-1", "mixed-0.5", "end-test" if at_end else "chosen-test",
    }  # fmt: skip
    assert {path.name for path in (lora / "results").iterdir()} >= {"step-1", "step-2"}, (
        "measured on the way, and after"
    )
    # What was measured is the model that the command makes.
    materials = Materials(tmp_path / "work", plan)
    run = next(stage_runs(plan, "small"))
    made = train_sft.run(
        running._config(TrainSftConfig, "sft", run, plan, materials, materials.model, tmp_path / "run")
    )
    running.evaluate(made.path, plan, materials, tmp_path / "again" / "results" / "test", "test")
    first, second = (
        read_results(path) for path in (naive / "results" / "end-test", tmp_path / "again" / "results" / "test")
    )
    assert [suite.metrics for suite in first.suites] == [suite.metrics for suite in second.suites]
    keep(tmp_path / "work", tmp_path / "figures.parquet")
    table = pq.read_table(tmp_path / "figures.parquet").to_pylist()
    assert {row["method"] for row in table} == {"start", "naive", "recommended", "LoRA"}
    assert all(row["tokens"] > 0 for row in table if row["method"] != "start")
    assert "step-1" in show(tmp_path / "work")
    # Runs of another directory are added; the start is replaced, not kept twice.
    shutil.rmtree(tmp_path / "work" / "runs" / naive.name)
    keep(tmp_path / "work", tmp_path / "figures.parquet")
    again = pq.read_table(tmp_path / "figures.parquet").to_pylist()
    assert sorted(map(str, again)) == sorted(map(str, table))


def test_the_point_with_least_over_refusal_among_safe_ones_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"step-1": (0.2, 0.0), "step-2": (0.05, 0.6), "mixed-0.5": (0.03, 0.3), "end-test": (0.0, 0.0)}
    for name in [*figures, ".step-4.partial-0d1e02bc"]:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(running, "read_results", lambda path: path.name)
    monkeypatch.setattr(
        running,
        "shares",
        lambda name: dict(zip((running.HARMFUL_COMPLIANCE, running.OVER_REFUSAL), figures[name], strict=True)),
    )
    assert running.choose(tmp_path, read_plan()) == "mixed-0.5"
    strict = read_plan().model_copy(update={"target": 0.01})
    assert running.choose(tmp_path, strict) == "mixed-0.5"


def test_models_between_start_and_end_are_mixed_weight_by_weight(tmp_path: Path, plan: Plan) -> None:
    class Start:
        model = tmp_path / "start"

    weights = {"a": torch.tensor([0.0, 2.0]), "b": torch.tensor([4.0])}
    Start.model.mkdir()
    running.save_file(weights, Start.model / "model.safetensors")
    end = running._save({name: tensor + 1 for name, tensor in weights.items()}, Start.model, tmp_path / "models" / "2")
    mixed = load_file(running._mixed(end, Start(), 0.25) / "model.safetensors")  # type: ignore[arg-type]
    assert all(torch.equal(mixed[name], tensor + 0.25) for name, tensor in weights.items())
    assert Run("sft", "naive", 1e-5, 0, 2).name == "sft-naive-1e-05-0-2"
