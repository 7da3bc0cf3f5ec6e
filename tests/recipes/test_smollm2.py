"""The recipe smollm2, cut to seconds: a random model of two layers in the place of the real one, few rows and steps."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="GGUF files need the extra 'gguf'")

from data_registry.core.manifest import read_manifest
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.configs.run import RecipeConfig
from pipelines.evaluation.contract.results import read_results
from pipelines.recipes.chain import Chain, load_chain
from pipelines.recipes.in_process import run_steps
from tests.importing.small_gguf import small_model, vocabulary, write_gguf

HELD_OUT = {"xstest-shipped", "harmbench-pip", "do-not-answer-malicious", "lookalikes"}


def chain(out: Path, **variables: object) -> Chain:
    return load_chain(RecipeConfig(recipe="smollm2", out=out, variables=variables))


def test_runs_differ_in_anchors_alone_and_all_are_measured_alike(tmp_path: Path) -> None:
    steps = {step.name: step.config for step in chain(tmp_path).steps}
    naive, recommended = steps["naive"].model_dump(), steps["recommended"].model_dump()
    differing = {key for key in naive if naive[key] != recommended[key]}
    assert differing == {
        "out", "anchor", "anchor_ratio", "anchor_shares", "anchor_weight", "batch_size", "learning_rate", "max_steps",
    }  # fmt: skip
    measured = [config.model_dump() for config in steps.values() if isinstance(config, EvaluateConfig)]
    assert {key for one in measured for key in one if one[key] != measured[0][key]} == {"model", "name", "out"}


def test_nothing_that_is_measured_is_trained_on(tmp_path: Path) -> None:
    steps = {step.name: step.config for step in chain(tmp_path).steps}
    learned = {str(steps[name].model_dump().get("source")) for name in ("safety", "alpaca")}
    learned.add(str(steps["look-alikes"].model_dump()["data"]))
    assert learned == {"hh-refusals", "alpaca-train", "lookalikes-train"}
    results = steps["start-results"]
    assert isinstance(results, EvaluateConfig)
    assert set(results.suite) >= HELD_OUT
    assert learned.isdisjoint(results.suite)
    assert {path.name for path in results.data} == {"alpaca-test", "halueval-test", "gsm8k-test", "heldout"}
    assert str(steps["heldout-answers"].model_dump()["data"]).endswith("halueval-test")


def test_the_whole_recipe_on_a_small_model(tmp_path: Path) -> None:
    model = small_model(len(vocabulary()[0]))
    model.config.max_position_embeddings = 512
    write_gguf(tmp_path / "small.gguf", model)
    steps = chain(
        tmp_path / "run",
        **{
            "model": str(tmp_path / "small.gguf"), "rows": 16, "anchor-samples": 4, "look-alikes": 4, "max-steps": 2,
            "batch-size": 3, "anchored-steps": 2, "anchored-rows": 2, "anchored-rate": 1e-3,
            "max-length": 512, "items": 5, "max-new-tokens": 3, "learning-rate": 1e-3,
            "suites": ["xstest-shipped", "lookalikes", "instructions", "reference-loss", "answer-choice", "divergence"],
        },
    ).steps  # fmt: skip
    assert not any(run_steps(steps, threads=1))
    assert all(run_steps(steps[:3], threads=1)), "a second time they are up to date"
    for step in steps:
        assert read_manifest(step.out).command
    naive, recommended = (read_manifest(tmp_path / "run" / "runs" / name) for name in ("naive", "recommended"))
    start = read_results(tmp_path / "run" / "results" / "start")
    assert start.metric("divergence/heldout", "kl").value == pytest.approx(0, abs=1e-4)
    assert "anchor/kl" in str(recommended.summary)
    assert "anchor/kl" not in str(naive.summary)
    results = read_results(tmp_path / "run" / "results" / "recommended")
    assert {suite.suite for suite in results.suites} == {
        "safety/xstest-shipped", "safety/lookalikes", "instructions", "divergence/heldout",
        *(f"{suite}/{name}-test" for suite in ("reference-loss", "answer-choice")
          for name in ("alpaca", "halueval", "gsm8k")),
    }  # fmt: skip
    assert "SFT with anchors" in (tmp_path / "run" / "report" / "table.md").read_text(encoding="utf-8")
