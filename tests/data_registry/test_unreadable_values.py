"""What Python cannot hold: a row that needs it is unreadable, one that does not look at it is read."""

import json
import struct
from decimal import Decimal
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_registry.core.arrow_values import checked, rows_of
from data_registry.core.errors import InputError
from data_registry.core.json_text import MAX_DEPTH, decode
from data_registry.core.unreadable import Unreadable
from data_registry.formats.registry import make_layout
from data_registry.preparing.reading import RowReader, excerpt
from data_registry.preparing.selection import RejectedFile
from data_registry.schema import UNREADABLE
from data_registry.sources.opening import open_source
from tests.data_registry.small_sources import location, read, write_bytes, write_text

GOOD = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
LONG = "9" * 6000


def not_utf8(count: int) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), count, pa.array([b"\xff\xfe?"] * count, pa.binary()).buffers())


def whole_numbers(value: int, kind: pa.DataType) -> pa.Array:
    return pa.array([value] * 4, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


STRANGE = {
    "beyond the year 9999": (whole_numbers(2**62, pa.timestamp("us")), True),
    "a zone that nobody knows": (whole_numbers(1, pa.timestamp("us", tz="Mars/Phobos")), True),
    "a day beyond all calendars": (whole_numbers(2**30, pa.date32()), True),
    "a very long duration": (whole_numbers(2**62, pa.duration("s")), True),
    "bytes that are not UTF-8": (not_utf8(4), True),
    "an object with a key twice": (pa.StructArray.from_arrays([pa.array([1] * 4)] * 2, ["a", "a"]), True),
    "a long decimal": (pa.array([Decimal("9" * 38)] * 4), False),
    "bytes": (pa.array([b"\xff"] * 4), True),
}


@pytest.mark.parametrize("write", ["parquet", "arrow"])
@pytest.mark.parametrize(("strange", "unreadable"), STRANGE.values(), ids=STRANGE)
def test_a_strange_value_matters_only_where_its_column_is_used(tmp_path, write, strange, unreadable):
    table = pa.table({"question": list("abcd"), "answer": list("efgh"), "strange": strange})
    path = tmp_path / f"a.{write}"
    if write == "parquet" and not pa.types.is_duration(strange.type):
        pq.write_table(table, path)
    else:
        path = tmp_path / "a.arrow"
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    (chunk,) = open_source(location(path)).chunks()
    assert all(isinstance(row["strange"], Unreadable) == unreadable for _, row in chunk.entries())
    assert RowReader(make_layout("qa"), "sft")(chunk).rows.num_rows == 4
    outcome = RowReader(make_layout("qa", {"response": "strange"}), "sft")(chunk)
    assert [rejection.reason for rejection in outcome.rejected] == [UNREADABLE] * 4
    if unreadable:
        assert "'strange' is a value of type" in outcome.rejected[0].detail
    with RejectedFile(tmp_path / "rejected.jsonl") as record:
        record.write(outcome.rejected[0])
    assert json.loads((tmp_path / "rejected.jsonl").read_text())["number"] == 1


def test_a_strange_value_deep_in_a_message_leaves_the_message_readable(tmp_path):
    fields = [pa.array(["user", "assistant"] * 2), pa.array(["q", "a"] * 2), not_utf8(4)]
    messages = pa.ListArray.from_arrays(
        pa.array([0, 2, 4]), pa.StructArray.from_arrays(fields, ["role", "content", "x"])
    )
    pq.write_table(pa.table({"messages": messages}), tmp_path / "a.parquet")
    (chunk,) = open_source(location(tmp_path / "a.parquet")).chunks()
    outcome = RowReader(make_layout("messages"), "sft")(chunk)
    assert outcome.rows.to_pylist() == [GOOD, GOOD]


def test_rows_without_a_strange_value_show_the_format(tmp_path):
    texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff\xfe?", b"ok?"], pa.binary()).buffers())
    pq.write_table(pa.table({"question": texts, "answer": ["a", "b"]}), tmp_path / "a.parquet")
    assert open_source(location(tmp_path / "a.parquet")).sample() == [{"question": "ok?", "answer": "b"}]


def forged(table: pa.Table, opener) -> bytes:
    """An Arrow file whose fourth text begins far outside of it."""
    sink = pa.BufferOutputStream()
    with opener(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    at = data.find(struct.pack("<4i", 0, 3, 6, 9))
    assert at > 0
    return data[: at + 12] + struct.pack("<i", 0x7FFFFF00) + data[at + 16 :]


@pytest.mark.parametrize("opener", [pa.ipc.new_stream, pa.ipc.new_file], ids=["stream", "file"])
@pytest.mark.parametrize("nested", [False, True])
def test_forged_offsets_are_damage(tmp_path, opener, nested):
    column = pa.array([f"q{i}?" for i in range(10)])
    if nested:  # behind a text that is not UTF-8, at which Arrow's own check ends
        column = pa.StructArray.from_arrays([not_utf8(10), column], ["a", "b"])
    path = write_bytes(tmp_path / "a.arrow", forged(pa.table({"question": column}), opener))
    with pytest.raises(InputError, match=r"Arrow file is damaged: column 'question': .*[Oo]ffset") as caught:
        read(location(path))
    assert caught.value.where == str(path)


def test_a_batch_is_checked_before_it_is_given_on():
    batch = pa.record_batch([pa.DictionaryArray.from_arrays(pa.array([0, 1]), ["a"], safe=False)], ["x"])
    with pytest.raises(pa.ArrowInvalid, match="column 'x'"):
        next(checked([batch]))
    with pytest.raises(pa.ArrowInvalid, match="'x' appears twice"):
        next(checked([pa.record_batch([pa.array([1]), pa.array([2])], ["x", "x"])]))
    assert rows_of(pa.record_batch([], schema=pa.schema([]))) == []


@pytest.mark.parametrize("kind", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("text", "row"),
    [
        (f'{{"id": {LONG}, "a": [-{LONG}]}}', {"id": Unreadable("a whole number of 6000 digits"),
                                               "a": [Unreadable("a whole number of 6001 digits")]}),
        ('{"a": {"b": 1, "b": 2}}', {"a": Unreadable("the key 'b' appears twice in an object")}),
        ('{"a": "\\ud800"}', {"a": "\ud800"}),
    ],
    ids=["long numbers", "a key twice", "half of a surrogate pair"],
)  # fmt: skip
def test_json_values_that_cannot_be_held_stand_alone(tmp_path, kind, text, row):
    content = f'{{"b": 1}}\n{text}\n' if kind == "jsonl" else f'[{{"b": 1}}, {text}]'
    assert read(location(write_text(tmp_path / f"a.{kind}", content))) == [{"b": 1}, row]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a":' * 500 + "1" + "}" * 500, LONG, "[]"])
def test_json_rows_that_cannot_be_held_are_broken(tmp_path, kind, text):
    content = f'{{"b": 1}}\n{text}\n' if kind == "jsonl" else f'[{{"b": 1}}, {text}]'
    (chunk,) = open_source(location(write_text(tmp_path / f"a.{kind}", content))).chunks()
    outcome = RowReader(make_layout("messages"), "sft")(chunk)
    assert [rejection.reason for rejection in outcome.rejected] == [UNREADABLE] * 2


def test_depth_is_bounded_at_one_level():
    deepest = '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH
    assert isinstance(decode(deepest), dict)
    assert isinstance(decode(f"[{deepest}]"), Unreadable)
    assert decode("\ufeff" + json.dumps("[" * 500)) == "[" * 500


def test_a_conversation_in_a_csv_cell_may_be_too_deep(tmp_path):
    rows = 'messages\n"[{""role"": ""user"", ""content"": ""q""}, {""role"": ""assistant"", ""content"": ""a""}]"\n'
    (chunk,) = open_source(location(write_text(tmp_path / "a.csv", rows + "[" * 100_000 + "\n"))).chunks()
    outcome = RowReader(make_layout("messages"), "sft")(chunk)
    assert outcome.rows.to_pylist() == [GOOD]
    assert outcome.rejected[0].detail == f"a conversation is values are nested more than {MAX_DEPTH} deep"


def test_any_row_can_be_recorded_as_rejected(tmp_path):
    lines = [
        '{"\\ud800": 1}',
        '{"messages": [{"role": "\\udc80", "content": "x"}]}',
        '{"messages":' * 90 + "1" + "}" * 90,
    ]
    (chunk,) = open_source(location(write_text(tmp_path / "a.jsonl", "\n".join(lines)))).chunks()
    outcome = RowReader(make_layout("messages"), "sft")(chunk)
    with RejectedFile(tmp_path / "rejected.jsonl") as record:
        for rejection in outcome.rejected:
            record.write(rejection)
    written = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["number"] for line in written] == [1, 2, 3]
    assert written[0]["row"] == {"\\ud800": 1}


def test_an_excerpt_ends_at_some_depth():
    value: object = "inside"
    for _ in range(5000):
        value = {"a": [value]}
    assert len(json.dumps(excerpt(value))) < 1000


@pytest.mark.parametrize(("names", "good", "bad"), [(["good", "bad"], 0, 1), (["bad", "good"], 1, 0)])
@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_classes_are_read_by_their_names(tmp_path: Path, kind: str, names: list[str], good: int, bad: int) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    columns = {"text": ["one", "two", "three"], "label": [good, bad, -1]}
    made = datasets.Dataset.from_dict(columns, features=features)
    if kind == "folder":
        made.save_to_disk(str(tmp_path / "saved"))
        (file,) = (tmp_path / "saved").glob("*.arrow")
        with pa.ipc.open_stream(file.read_bytes()) as stream:
            batches = list(stream)
    else:
        made.to_parquet(str(tmp_path / "rows.parquet"))
        batches = list(pq.ParquetFile(tmp_path / "rows.parquet").iter_batches())
    rows = [row for batch in batches for row in rows_of(batch)]
    assert [row["label"] for row in rows] == ["good", "bad", None]
