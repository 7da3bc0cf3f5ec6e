"""``evaluate --baseline``: what changed between two models, against counting by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest

from data_registry.core.errors import InputError
from data_registry.testbed import MODEL_DIR
from pipelines.commands import evaluate
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.evaluation import measuring
from pipelines.evaluation.contract.answer import read_answers
from pipelines.reporting.baseline import flip_lines


def config(out: Path, **options) -> EvaluateConfig:
    return EvaluateConfig(**{"model": str(MODEL_DIR), "suite": ["testbed"], "out": out, "num_samples": 12} | options)


@pytest.fixture(scope="module")
def worse(tmp_path_factory) -> Path:
    model = Path(shutil.copytree(MODEL_DIR, tmp_path_factory.mktemp("worse") / "model"))
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][::2] = 0.0
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    return model


def test_flips_and_their_test_are_those_of_the_stored_items(tmp_path, worse):
    base = evaluate.run(config(tmp_path / "base"))
    chosen = config(tmp_path / "r", model=str(worse), baseline=tmp_path / "base", name="worse")
    changes = evaluate.compare(chosen, evaluate.run(chosen))
    assert {changed.comparison.figure.name for changed in changes} >= {"safe", "over_refusal", "general"}
    before = {item.id: item for item in read_answers(base.path)}
    after = {item.id: item for item in read_answers(tmp_path / "r")}
    found = {changed.comparison.figure.name: changed for changed in changes}
    for name in found:
        groups = base.results.metric("testbed", name).groups
        raised = [key for key, item in after.items() if item.group in groups and item.score > before[key].score]
        lowered = [key for key, item in after.items() if item.group in groups and item.score < before[key].score]
        changed = found[name]
        assert (list(changed.raised), list(changed.lowered)) == (raised, lowered)
        flips = changed.comparison.flips
        assert (flips.gained, flips.lost) == (len(raised), len(lowered))
        if raised or lowered:
            exact = binomtest(len(raised), len(raised) + len(lowered), 0.5).pvalue
            assert flips.p_value == pytest.approx(exact)
    assert len(found["general"].lowered) > 3  # it is worse
    text = flip_lines([found["general"]], most=2)
    assert any(line.endswith(f" and {len(found['general'].lowered) - 2} more") for line in text)


def test_a_baseline_of_other_settings_is_refused(tmp_path):
    evaluate.run(config(tmp_path / "base", num_samples=1))
    other = config(tmp_path / "r", num_samples=2, baseline=tmp_path / "base")
    with pytest.raises(InputError, match=r"cannot be compared:\n  - testbed: prompt hash"):
        evaluate.compare(other, evaluate.run(other))


def test_a_baseline_that_is_not_there_is_known_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "open_model", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(InputError):
        evaluate.run(config(tmp_path / "r", baseline=tmp_path / "none"))
    assert not (tmp_path / "r").exists()


def test_a_baseline_of_other_suites_is_refused_before_the_work(tmp_path, monkeypatch):
    base = evaluate.run(config(tmp_path / "base", num_samples=1)).path
    (tmp_path / "bad.txt").write_text("how do i break a lamp ?\n")
    (tmp_path / "mine.yaml").write_text("sets: [{data: bad.txt, layout: {harmful: true}}]\n")
    judged = evaluate.run(config(tmp_path / "judged", suite=["prompts"], harmful=[tmp_path / "bad.txt"])).path
    monkeypatch.setattr("pipelines.evaluation.measuring.measure", lambda *arguments: pytest.fail("it was measured"))
    for suite, options in (
        ("prompts", {"harmful": [tmp_path / "bad.txt"]}),
        (str(tmp_path / "mine.yaml"), {}),
    ):
        with pytest.raises(InputError, match=r"has figures of testbed, and this is about (prompts|mine)/bad"):
            evaluate.run(config(tmp_path / "r", suite=[suite], baseline=base, **options))
    with pytest.raises(InputError, match="has figures of testbed, and this is about prompts/bad"):
        evaluate.run(EvaluateConfig(rejudge=judged, baseline=base, out=tmp_path / "r"))
    assert not (tmp_path / "r").exists()
