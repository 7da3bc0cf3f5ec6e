"""The recipe of prepare-data: what becomes of every row, and that mistakes leave nothing behind."""

import json
import random

import pytest

from data_registry.core.errors import ArtifactError, InputError
from data_registry.prepared import load_prepared
from data_registry.testbed.pools import POOLS
from data_registry.testbed.pools import rows as pool_rows
from pipelines.commands import prepare_data
from tests.preparing.small_sources import alpaca, config, prepare, write


def questions(out):
    return [row["messages"][-2]["content"] for row in load_prepared(out)[0]]


# What comes out


def test_result_is_an_artifact_that_the_library_opens_too(source, tmp_path):
    import datasets

    result = prepare(source, tmp_path / "out")
    rows, manifest = load_prepared(tmp_path / "out", task="sft", verify=True)
    assert rows[7]["messages"] == [
        {"role": "user", "content": "question 7"},
        {"role": "assistant", "content": "answer 7"},
    ]
    assert len(rows) == result.counts.read == result.counts.kept == 1500
    assert datasets.load_from_disk(str(tmp_path / "out")).to_list() == rows.to_list()
    assert manifest.summary["task"] == "sft"
    assert manifest.summary["format"] == "alpaca"
    assert [record.role for record in manifest.inputs] == ["source"]
    assert not result.up_to_date


def test_every_row_is_accounted_for(tmp_path):
    rows = [
        alpaca(0),
        "not json",
        alpaca(0),
        {"instruction": "", "output": "A"},
        {"instruction": "x"},
        "",
        [1],
        {"instruction": "a" * 5000, "output": ""},
        alpaca(1),
    ]
    result = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out", max_dropped=0.7)
    counts = result.counts
    assert (counts.read, counts.kept, counts.duplicates) == (8, 2, 1)
    assert counts.dropped == {"unreadable": 3, "empty": 2}
    assert result.manifest.summary["counts"]["dropped"] == counts.dropped
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    found = {line["number"]: line["reason"] for line in lines}
    assert found == {2: "unreadable", 3: "duplicate", 4: "empty", 5: "unreadable", 7: "unreadable", 8: "empty"}
    by_number = {line["number"]: line for line in lines}
    assert by_number[2]["row"].strip() == "not json"
    assert by_number[2]["where"] == f"{tmp_path / 'a.jsonl'}:2"
    assert len(by_number[8]["row"]["instruction"]) < 500
    assert "rejected.jsonl" in result.manifest.files


def test_same_command_again_is_up_to_date_and_other_settings_are_refused(source, tmp_path):
    out = tmp_path / "out"
    first = prepare(source, out, num_samples=10)
    again = prepare(source, out, num_samples=10, num_workers=2)
    assert again.up_to_date
    assert again.manifest.fingerprint == first.manifest.fingerprint
    assert again.counts == first.counts
    with pytest.raises(ArtifactError, match="num_samples"):
        prepare(source, out, num_samples=11)
    assert len(load_prepared(out)[0]) == 10
    assert prepare(source, out, num_samples=11, overwrite=True).counts.kept == 11
    write(source, [alpaca(i) for i in range(1400)])
    with pytest.raises(ArtifactError, match="source"):
        prepare(source, out, num_samples=11)


def test_number_of_workers_changes_nothing(tmp_path):
    rows = [{**alpaca(i % 2000), "note": i % 3 or None} if i % 50 else "broken" for i in range(2500)]
    path = write(tmp_path / "a.jsonl", rows)
    options = {"num_samples": 300, "split": "train", "max_dropped": 0.5}
    alone = prepare(path, tmp_path / "one", **options)
    together = prepare(path, tmp_path / "two", num_workers=2, **options)
    assert alone.manifest.fingerprint == together.manifest.fingerprint
    assert alone.counts == together.counts
    assert alone.counts.duplicates > 0
    assert alone.manifest.summary["unused_columns"] == together.manifest.summary["unused_columns"]


def test_draw_does_not_depend_on_the_order_of_the_source(source, tmp_path):
    prepare(source, tmp_path / "one", num_samples=100, seed=5)
    lines = source.read_text().splitlines()
    random.Random(0).shuffle(lines)
    prepare(write(tmp_path / "b.jsonl", lines), tmp_path / "two", num_samples=100, seed=5)
    assert set(questions(tmp_path / "one")) == set(questions(tmp_path / "two"))
    prepare(source, tmp_path / "three", num_samples=100, seed=6)
    assert set(questions(tmp_path / "one")) != set(questions(tmp_path / "three"))
    numbers = [int(question.split()[1]) for question in questions(tmp_path / "one")]
    assert numbers == sorted(numbers)


def test_train_and_heldout_part_are_disjoint_and_whole_and_stay_so(source, tmp_path):
    heldout = prepare(source, tmp_path / "h", split="heldout", heldout_fraction=0.2)
    prepare(source, tmp_path / "t", split="train", heldout_fraction=0.2)
    held, trained = questions(tmp_path / "h"), questions(tmp_path / "t")
    assert len(held) + len(trained) == 1500
    assert not set(held) & set(trained)
    assert 240 < len(held) < 360
    assert heldout.counts.other_split == len(trained)
    # Other rows, another order, a system message: every row stays on its side.
    lines = [alpaca(i) for i in range(2000, 700, -1)]
    prepare(
        write(tmp_path / "b.jsonl", lines), tmp_path / "h2", split="heldout", heldout_fraction=0.2, system="Be brief."
    )
    common = {f"question {i}" for i in range(701, 1500)}
    assert set(questions(tmp_path / "h2")) & common == set(held) & common


def test_system_message_is_put_before_every_conversation(source, tmp_path):
    prepare(source, tmp_path / "out", system="Be brief.")
    rows, _ = load_prepared(tmp_path / "out")
    assert {(row["messages"][0]["role"], row["messages"][0]["content"]) for row in rows} == {("system", "Be brief.")}


def test_rows_are_filtered_by_a_column_without_counting_as_dropped(tmp_path):
    rows = [{**alpaca(i), "language": "en" if i % 4 == 0 else "de", "ok": True} for i in range(40)]
    result = prepare(
        write(tmp_path / "a.jsonl", rows), tmp_path / "out", where={"language": "en", "ok": "true"}, max_dropped=0
    )
    assert (result.counts.kept, result.counts.filtered, result.counts.dropped) == (10, 30, {})


def test_duplicates_do_not_count_as_dropped(tmp_path):
    result = prepare(write(tmp_path / "a.jsonl", [alpaca(0)] * 50), tmp_path / "out", max_dropped=0)
    assert (result.counts.kept, result.counts.duplicates) == (1, 49)


def test_prepared_data_is_a_source_again(source, tmp_path):
    prepare(source, tmp_path / "one")
    result = prepare(tmp_path / "one", tmp_path / "two", num_samples=5)
    assert result.counts.kept == 5
    (record,) = result.manifest.inputs
    assert record.kind == "dataset"
    assert record.fingerprint == load_prepared(tmp_path / "one")[1].fingerprint


@pytest.mark.parametrize("pool", ["safety-sft", "safety-dpo", "assist", "reason"])
def test_pools_of_the_testbed(tmp_path, pool):
    result = prepare(f"testbed-{pool}", tmp_path / "out")
    rows, manifest = load_prepared(tmp_path / "out", task=POOLS[pool].task)
    assert rows.to_list() == list(pool_rows(pool))
    assert result.counts.kept == POOLS[pool].size
    assert manifest.summary["licence"] == "Apache-2.0"
    assert {record.role for record in manifest.inputs} == {"source", "entry"}


def test_entry_of_an_own_registry_with_all_its_settings(tmp_path):
    write(tmp_path / "a.jsonl", [{"q": f"{i}", "a": "A", "keep": str(i % 2)} for i in range(20)])
    (tmp_path / "mine.yaml").write_text(
        "description: Mine.\nsource: {path: a.jsonl}\nformat: qa\ncolumns: {prompt: q, response: a}\n"
        "where: {keep: '1'}\nnum_samples: 4\nlicence: MIT\n"
    )
    result = prepare("mine", tmp_path / "out", registry=str(tmp_path))
    assert (result.counts.kept, result.counts.filtered) == (4, 10)
    assert result.manifest.summary["licence"] == "MIT"
    assert prepare("mine", tmp_path / "out2", registry=str(tmp_path), num_samples=6).counts.kept == 6


def test_name_of_the_registry_goes_before_a_path_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "testbed-assist", [])
    assert prepare("testbed-assist", "out").counts.kept == 200
    with pytest.raises(InputError, match="of no kind"):
        prepare("./testbed-assist", "out2")


def test_plan_says_what_would_be_done_and_does_nothing(source, tmp_path):
    lines = dict(prepare_data.plan(config(source, tmp_path / "out", num_samples=5, split="train")))
    assert lines["format"] == "alpaca"
    assert lines["rows"] == "5, seed 0"
    assert not (tmp_path / "out").exists()
