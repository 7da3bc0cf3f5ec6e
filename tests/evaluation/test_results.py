"""The results format: what is refused when reading, and when two results may be compared."""

import json

import pytest
from pydantic import ValidationError

from data_registry.core.errors import ArtifactError, InputError
from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig
from pipelines.evaluation.contract.results import (
    Metric,
    Results,
    SuiteResults,
    SuiteSettings,
    comparable,
    read_results,
    refuse_unlike,
)

SETTINGS = {
    "version": "1", "split": "test", "prompt_hash": "a" * 64, "template_hash": "b" * 64, "shots": 0,
    "decoding": "greedy", "scoring": "exact match", "max_length": None, "tokenizer_hash": None,
}  # fmt: skip


def metric(name="safe", value=0.5, **changes) -> Metric:
    is_share = changes.get("unit", "share") == "share"
    low, high = (max(0.0, value - 0.1), min(1.0, value + 0.1)) if is_share else (value - 0.1, value + 0.1)
    given = {
        "name": name, "value": value, "low": low, "high": high, "interval": "bootstrap",
        "num_items": 120, "higher_is_better": True, "unit": "share", "groups": ("refusal",),
    }  # fmt: skip
    return Metric(**(given | changes))


def results(run="ours", suite="testbed", metrics=None, **settings) -> Results:
    return Results(
        run=run,
        model="runs/" + run,
        model_fingerprint="f" * 64,
        suites=(
            SuiteResults(
                suite=suite, settings=SuiteSettings(**(SETTINGS | settings)), metrics=tuple(metrics or [metric()])
            ),
        ),
    )


def store(path, text: str):
    with write_artifact(path, "results", CommandConfig(), []) as writer:
        (writer.path / "results.json").write_text(text)
    return path


def test_results_read_back_as_they_were_written(tmp_path):
    written = results(metrics=[metric(), metric("general", 0.9, low=None, high=None, interval=None, num_items=1)])
    assert read_results(store(tmp_path / "r", written.to_json())) == written


def test_figures_are_found_by_suite_and_name():
    ours = results()
    assert ours.metric("testbed", "safe") == metric()
    assert ours.metric("testbed", "unknown") is None
    assert ours.metric("other", "safe") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.update(schema_version=2), "newer ogpsa"),
        (lambda raw: raw.update(extra=1), "extra"),
        (lambda raw: raw.pop("run"), "run"),
        (lambda raw: raw["suites"][0]["metrics"][0].update(value="NaN-ish"), "value"),
        (lambda raw: raw["suites"][0]["metrics"][0].update(low=0.7), "upside down"),
        (lambda raw: raw["suites"][0]["metrics"][0].update(low=None), "together or not at all"),
        (lambda raw: raw["suites"][0]["metrics"][0].update(value=0.65), "does not hold the figure 0.65"),
        (lambda raw: raw["suites"][0]["metrics"][0].update(value=0.3), "does not hold the figure 0.3"),
        (lambda raw: raw["suites"][0]["metrics"][0].update(value=50.0, low=40.0, high=60.0), "between 0 and 1"),
        (lambda raw: raw["suites"][0]["metrics"][0].update(high=1.2), "between 0 and 1"),
        (lambda raw: raw["suites"][0]["metrics"][0].update(low=-0.2), "between 0 and 1"),
        (lambda raw: raw["suites"][0]["metrics"][0].update(value=-0.1, low=None, high=None, interval=None), "0 and 1"),
        (lambda raw: raw["suites"][0]["metrics"][0].update(num_items=0), "num_items"),
        (lambda raw: raw["suites"][0].update(metrics=[]), "metrics"),
        (lambda raw: raw["suites"].append(raw["suites"][0]), "twice"),
    ],
)
def test_damaged_results_say_where(tmp_path, change, message):
    raw = json.loads(results().to_json())
    change(raw)
    with pytest.raises(ArtifactError) as caught:
        read_results(store(tmp_path / "r", json.dumps(raw)))
    assert message in str(caught.value)


def test_results_that_are_no_json_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_results(store(tmp_path / "r", "{"))


def test_no_figure_may_be_infinite():
    with pytest.raises(ValidationError):
        metric(value=float("nan"), low=None, high=None, interval=None)


def test_like_results_are_comparable_whatever_the_model():
    assert comparable(results("ours"), results("theirs", metrics=[metric(value=0.9)])) == []


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("version", "2", "version is 1 for ours and 2 for theirs"),
        ("split", "validation", "split is test for ours and validation for theirs"),
        ("prompt_hash", "c" * 64, "prompt hash is aaaaaaaaaaaa... for ours"),
        ("template_hash", "c" * 64, "template hash"),
        ("shots", 5, "shots is 0 for ours and 5 for theirs"),
        ("decoding", "sampled", "decoding"),
        ("scoring", "judge", "scoring"),
        ("max_length", 512, "max length"),
        ("tokenizer_hash", "c" * 64, "tokenizer hash"),
    ],
)
def test_each_setting_is_a_reason_not_to_compare(field, value, shown):
    reasons = comparable(results("ours"), results("theirs", **{field: value}))
    assert len(reasons) == 1
    assert shown in reasons[0]


def test_every_setting_is_tried_above():
    assert set(SuiteSettings.model_fields) == set(SETTINGS)


def test_no_common_suite_is_a_reason():
    assert "no suite in common" in comparable(results(), results(suite="other"))[0]


def test_unlike_results_are_refused_with_all_reasons():
    with pytest.raises(InputError) as caught:
        refuse_unlike([results("a"), results("b"), results("c", shots=5, split="validation")])
    assert "split is test for a and validation for c" in str(caught.value)
    assert "shots is 0 for a and 5 for c" in str(caught.value)
    refuse_unlike([results("a"), results("b")])
