"""The shared development data, where it is here: known numbers of rows."""

from pathlib import Path

import pytest

from data_registry.core.errors import InputError
from tests.preparing.small_sources import prepare

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared development data is not here")


# Real files

REAL = {
    "hh pairs": ("hh_rlhf_harmless_base_test.jsonl.gz", {}, "hh", "preference", 2299, {"empty": 4, "roles": 9}),
    "hh for sft": (
        "hh_rlhf_harmless_base_test.jsonl.gz",
        {"task": "sft"},
        "hh",
        "sft",
        2300,
        {"empty": 4, "roles": 8},
    ),
    "HaluEval": ("halueval_general.jsonl", {"where": {"hallucination": "no"}}, "qa", "sft", 3692, {}),
    "GSM8K": ("gsm8k_test.jsonl", {}, "gsm8k", "sft", 1319, {}),
    "alpaca": ("alpaca_en_demo.json", {}, "alpaca", "sft", 985, {}),
    "ranked sharegpt": ("dpo_en_demo.json", {}, "sharegpt", "preference", 295, {}),
    "XSTest completions": (
        "xstest_v2_completions_llama2orig.csv",
        {"ignore_columns": "final_label"},
        "prompt-completion",
        "sft",
        450,
        {},
    ),
}


@needs_shared
@pytest.mark.parametrize(("name", "options", "format_name", "task", "rows", "dropped"), REAL.values(), ids=REAL)
def test_real_files(tmp_path, name, options, format_name, task, rows, dropped):
    result = prepare(SHARED / name, tmp_path / "out", **options)
    assert result.manifest.summary["format"] == format_name
    assert result.manifest.summary["task"] == task
    assert (result.counts.kept, result.counts.dropped) == (rows, dropped)


@needs_shared
def test_real_answers_that_people_judged_are_refused_by_the_column(tmp_path):
    source = SHARED / "xstest_v2_completions_llama2orig.csv"
    with pytest.raises(InputError, match=r"'final_label' judges the row.*--set where\.final_label=VALUE"):
        prepare(source, tmp_path / "out")
    kept = prepare(source, tmp_path / "out", where={"final_label": "1_full_compliance"}).counts
    assert 0 < kept.kept < 450


@needs_shared
def test_real_prompts_without_answers_are_refused(tmp_path):
    with pytest.raises(InputError, match="id, prompt, type"):
        prepare(SHARED / "xstest_prompts.csv", tmp_path / "out")


@needs_shared
def test_real_registry_of_llama_factory(tmp_path):
    registry = str(SHARED / "ogpsa_upstream_dataset_info.json")
    result = prepare("dpo_en_demo", tmp_path / "out", registry=registry)
    assert result.counts.kept == 295
    with pytest.raises(InputError, match="correct file_name"):
        prepare("saferlhf2_dpo", tmp_path / "out2", registry=registry)
