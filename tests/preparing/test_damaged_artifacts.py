"""A prepared data set whose rows are damaged or forged is refused when it is opened, also without its hashes."""

import struct

import pyarrow as pa
import pytest

from data_registry.core.errors import ArtifactError
from data_registry.prepared import load_prepared
from data_registry.schema import arrow_schema
from tests.preparing.small_sources import alpaca, prepare, write


@pytest.fixture
def prepared(tmp_path):
    prepare(write(tmp_path / "a.jsonl", [alpaca(i) for i in range(5)]), tmp_path / "out")
    return tmp_path / "out"


def test_an_offset_that_points_nowhere_is_found_before_a_row_is_taken(prepared):
    file = prepared / "data-00000.arrow"
    data = file.read_bytes()
    at = data.find(struct.pack("<3i", 0, 2, 4))  # each conversation has two messages
    assert at > 0
    file.write_bytes(data[: at + 8] + struct.pack("<i", 0x7FFFFF00) + data[at + 12 :])
    with pytest.raises(ArtifactError, match=r"cannot be read: column 'messages': .*[Oo]ffset") as caught:
        load_prepared(prepared)
    assert caught.value.exit_code == 3


MESSAGE = {"role": "user", "content": "q"}
FORGED = {
    "numbers": (pa.schema({"messages": pa.int64()}), [{"messages": 1}], "is not a list of messages"),
    "no messages": (arrow_schema("sft"), [{"messages": None}], "lacks a message"),
    "no message": (arrow_schema("sft"), [{"messages": [None]}], "lacks a message"),
    "no text": (arrow_schema("sft"), [{"messages": [{"role": "user", "content": None}]}], "its role or text"),
    "another column": (pa.schema({"text": pa.string()}), [{"text": "q"}], "does not hold the columns"),
    "no column": (pa.schema([]), [], "does not hold the columns|cannot be read"),
}


@pytest.mark.parametrize(("schema", "rows", "says"), FORGED.values(), ids=FORGED)
def test_rows_of_another_form_are_refused(prepared, monkeypatch, schema, rows, says):
    with pa.OSFile(str(prepared / "data-00000.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    (prepared / "dataset_info.json").write_text("{}")
    monkeypatch.setattr("data_registry.core.manifest.verify", lambda *_, **__: [])
    with pytest.raises(ArtifactError, match=says):
        load_prepared(prepared)


def test_whole_rows_are_opened(prepared):
    assert len(load_prepared(prepared, task="sft", verify=True)[0]) == 5
