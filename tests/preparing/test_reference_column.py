"""The right solution that preference pairs may have beside their answers: kept by everything that touches rows."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from data_registry.core.errors import ArtifactError, ConfigError
from data_registry.prepared import load_prepared
from data_registry.preparing.arrow_folder import ArrowFolder
from data_registry.schema import REFERENCE, arrow_schema
from pipelines.tokens.fitting import Bounds, encode_fitting_pairs
from pipelines.tokens.tokenizer import load_tokenizer
from tests.preparing.small_sources import prepare, write


def pair(number, **more):
    return {"prompt": f"question {number}", "chosen": f"right {number}", "rejected": f"wrong {number}", **more}


def references(path):
    return list(load_prepared(path)[0][REFERENCE])


@pytest.fixture
def pairs(tmp_path):
    rows = [pair(number, reference=f"gold {number}") for number in range(30)]
    rows[3]["reference"], rows[4]["reference"] = None, "  "
    return prepare(write(tmp_path / "a.jsonl", [*rows, pair(0, reference="another")]), tmp_path / "pairs")


def test_reference_is_kept_as_text_and_is_null_where_there_is_none(pairs):
    expected = [f"gold {number}" for number in range(30)]
    expected[3] = expected[4] = None
    assert references(pairs.path) == expected
    # A row with the same messages is the same row: the first one is kept, with its reference.
    assert pairs.counts.duplicates == 1
    assert pairs.manifest.summary["extra_columns"] == [REFERENCE]
    assert "unused_columns" not in pairs.manifest.summary


def test_rows_without_it_come_out_as_they_did(tmp_path):
    made = prepare(write(tmp_path / "a.jsonl", [pair(number) for number in range(9)]), tmp_path / "out")
    rows = load_prepared(made.path)[0]
    assert rows.column_names == ["prompt", "chosen", "rejected"]
    assert rows.data.schema.remove_metadata() == arrow_schema("preference")
    assert "extra_columns" not in made.manifest.summary


def test_selecting_once_more_keeps_it(pairs, tmp_path):
    again = prepare(pairs.path, tmp_path / "again")
    assert load_prepared(again.path)[0].to_list() == load_prepared(pairs.path)[0].to_list()
    drawn = load_prepared(prepare(pairs.path, tmp_path / "drawn", num_samples=7, seed=3).path)[0].to_list()
    assert len(drawn) == 7
    assert all(row in load_prepared(pairs.path)[0].to_list() for row in drawn)
    sides = [load_prepared(prepare(pairs.path, tmp_path / side, split=side, heldout_fraction=0.4).path)[0].to_list()
             for side in ("train", "heldout")]  # fmt: skip
    whole = load_prepared(pairs.path)[0].to_list()
    assert sorted(map(json.dumps, [*sides[0], *sides[1]])) == sorted(map(json.dumps, whole))
    none = prepare(pairs.path, tmp_path / "none", ignore_columns=[REFERENCE])
    assert load_prepared(none.path)[0].column_names == ["prompt", "chosen", "rejected"]


def test_it_is_kept_beyond_the_first_rows(tmp_path):
    rows = [pair(number, **({"reference": f"gold {number}"} if number % 3 else {})) for number in range(2500)]
    one = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "one")
    assert references(one.path) == [f"gold {number}" if number % 3 else None for number in range(2500)]


def test_column_without_an_early_value_is_named_and_taken_if_it_is_declared(tmp_path):
    rows = [pair(0, reference=None), *(pair(number) for number in range(1, 60)), pair(60, reference="gold")]
    source = write(tmp_path / "a.jsonl", rows)
    assert prepare(source, tmp_path / "out").manifest.summary["unused_columns"] == {"reference": 1}
    assert references(prepare(source, tmp_path / "in", columns={"reference": "reference"}).path)[-2:] == [None, "gold"]


def test_other_column_can_be_declared(tmp_path):
    source = write(tmp_path / "a.jsonl", [pair(number, solution=number) for number in range(5)])
    made = prepare(source, tmp_path / "out", columns={"reference": "solution"})
    assert references(made.path) == ["0", "1", "2", "3", "4"]
    with pytest.raises(ConfigError, match="no column 'gold'"):
        prepare(source, tmp_path / "no", columns={"reference": "gold"})
    with pytest.raises(ConfigError, match="rows for sft have no 'reference'"):
        prepare(source, tmp_path / "no", columns={"reference": "solution"}, task="sft")
    assert not (tmp_path / "no").exists()


def test_sft_rows_of_pairs_have_none_and_it_is_named(pairs, tmp_path):
    made = prepare(pairs.path, tmp_path / "sft", task="sft")
    assert load_prepared(made.path)[0].column_names == ["messages"]
    assert made.manifest.summary["unused_columns"] == {"reference": 28}


def test_reference_that_is_no_text_is_unreadable(tmp_path):
    rows = [pair(0, reference="gold"), pair(1, reference=["gold"])]
    made = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out", max_dropped=0.5)
    assert made.counts.dropped == {"unreadable": 1}


def test_system_message_leaves_it_alone(pairs, tmp_path):
    made = prepare(pairs.path, tmp_path / "out", system="Be brief.")
    assert references(made.path) == references(pairs.path)
    assert load_prepared(made.path)[0][0]["prompt"][0] == {"role": "system", "content": "Be brief."}


def test_training_sees_the_same_tokens_with_and_without_it(pairs, tmp_path, tokenizer):
    loaded = load_tokenizer(tokenizer)
    none = prepare(pairs.path, tmp_path / "none", ignore_columns=[REFERENCE])
    found = [
        encode_fitting_pairs(load_prepared(path)[0], loaded, Bounds(64), name="pairs")
        for path in (pairs.path, none.path)
    ]
    assert found[0] == found[1]


def test_column_of_another_type_is_refused(pairs):
    rows = load_prepared(pairs.path)[0].to_list()
    schema = arrow_schema("preference").append(pa.field(REFERENCE, pa.int64()))
    with ArrowFolder(pairs.path, schema) as folder:
        folder.write(pa.RecordBatch.from_pylist([{**row, REFERENCE: 1} for row in rows], schema))
        folder.finish()
    # The manifest's sizes are those of another file: the type is looked at alone.
    import datasets

    from data_registry.prepared import _check_rows

    with pytest.raises(pa.ArrowInvalid, match="column 'reference' is not text"):
        _check_rows(datasets.load_from_disk(str(pairs.path)).data, arrow_schema("preference", [REFERENCE]))
    with pytest.raises(ArtifactError):
        load_prepared(pairs.path)
