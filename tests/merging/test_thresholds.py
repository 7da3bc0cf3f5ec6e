"""Thresholds: several in one pass, chosen for a share of the layers, and only looked at."""

from __future__ import annotations

import pytest

from pipelines.commands import merge
from pipelines.merging import layers
from tests.merging.adapters import config, expected_rhos
from tests.reference.merge_inputs import file_hashes

pytestmark = pytest.mark.usefixtures("small_blocks")


def test_a_sweep_makes_one_result_for_each_threshold_in_one_pass(made, tmp_path, monkeypatch):
    rhos = sorted(expected_rhos(made).values())
    thresholds = [0.0, rhos[5] + 1e-4, 1.0]
    reads = []
    plainly = layers.difference
    monkeypatch.setattr(layers, "difference", lambda *a, **k: reads.append((a[0].name, *a[2:])) or plainly(*a, **k))
    result = merge.run(config(made, tmp_path / "sweep", cos_threshold=thresholds))
    in_sweep, reads[:] = list(reads), []
    for value, merged in zip(thresholds, result.merged, strict=True):
        single = merge.run(config(made, tmp_path / f"single-{value}", cos_threshold=[value]))
        if value == 0.0:
            assert len(reads) > 21
            assert sorted(reads) == sorted(in_sweep)
        assert merged.path == tmp_path / "sweep" / f"cos-{value:g}"
        assert file_hashes(merged.path / "model") == file_hashes(single.path / "model")
        assert merged.records == single.merged[0].records
    assert [merged.manifest.summary.get("merged", 0) for merged in result.merged] == [0, 6, 21]
    assert not result.up_to_date
    assert merge.run(config(made, tmp_path / "sweep", cos_threshold=thresholds)).up_to_date
    # One directory of a sweep is what the single threshold would make there.
    assert merge.run(config(made, tmp_path / "sweep/cos-1", cos_threshold=[1.0])).up_to_date


@pytest.mark.parametrize("method", ["safemerge", "safelora"])
def test_the_threshold_is_chosen_for_a_share_of_the_layers(made, tmp_path, method):
    options = {"threshold": "auto", "merge_fraction": 1 / 3, "method": method}
    if method == "safelora":
        options["safe"] = None
    result = merge.run(config(made, tmp_path / "out", **options))
    rhos = sorted(expected_rhos(made).values())
    assert rhos[6] < result.manifest.summary["threshold"] < rhos[7]
    assert sum(record.action in ("merged", "projected") for record in result.merged[0].records) == 7
    fixed = dict(options, cos_threshold=[result.manifest.summary["threshold"]])
    fixed.pop("threshold"), fixed.pop("merge_fraction")
    merge.run(config(made, tmp_path / "fixed", **fixed))
    assert file_hashes(tmp_path / "fixed/model") == file_hashes(tmp_path / "out/model")


def test_a_report_and_a_dry_run_write_no_weights(made, tmp_path):
    options = {"cos_threshold": [0.3, 0.5], "output": "report"}
    result = merge.run(config(made, tmp_path / "out", **options))
    assert {path.name for path in (tmp_path / "out/cos-0.5").iterdir()} == {
        "manifest.json", "layers.parquet", "rho.png", "config.yaml",
    }  # fmt: skip
    assert result.merged[0].manifest.kind == "merge-report"
    made_really = merge.run(config(made, tmp_path / "really", cos_threshold=[0.5]))
    fields = ("layer", "rho", "action", "threshold", "norm_finetuned", "norm_safe", "norm_alignment")
    assert [[getattr(r, f) for f in fields] for r in result.merged[1].records] == [
        [getattr(r, f) for f in fields] for r in made_really.merged[0].records
    ]
    before = set(tmp_path.iterdir())
    rows = merge.plan(config(made, tmp_path / "dry", cos_threshold=[0.3, 0.5]))
    assert set(tmp_path.iterdir()) == before
    for record in made_really.merged[0].records:
        assert (record.layer, f"rho {record.rho:.5f}") in [(name, value.split("  ")[0]) for name, value in rows]
