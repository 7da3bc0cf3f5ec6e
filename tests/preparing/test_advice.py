"""Sources that are almost data: read where that is plain, or refused with what helps."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from data_registry.core.errors import InputError
from data_registry.prepared import load_prepared
from tests.preparing.small_sources import alpaca, prepare, write

PAIRS = [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(3)]
TABLE = "prompt{0}completion\nq0{0}a0\nq1{0}a1\nq2{0}a2\n"


def archive() -> bytes:
    """A zip file with rows in it."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as packed:
        packed.writestr("rows.jsonl", json.dumps(PAIRS[0]))
    return sink.getvalue()


READ = {
    "semicolons": ("a.csv", TABLE.format(";")),
    "tabs": ("a.csv", TABLE.format("\t")),
    "bars": ("a.csv", TABLE.format("|")),
    "commas in a file of tabs": ("a.tsv", TABLE.format(",")),
    "a line that names the separator": ("a.csv", "sep=;\n" + TABLE.format(";")),
    "capitals and blanks": ("a.csv", TABLE.format(",").replace("prompt,completion", "\ufeff Prompt ,COMPLETION")),
    "capitals in JSON": (
        "a.json",
        json.dumps([{"Prompt": row["prompt"], "Completion": row["completion"]} for row in PAIRS]),
    ),
}


@pytest.mark.parametrize(("name", "text"), READ.values(), ids=READ)
def test_what_is_plain_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    prepare(tmp_path / name, tmp_path / "out")
    rows, _ = load_prepared(tmp_path / "out")
    assert [[entry["content"] for entry in row["messages"]] for row in rows] == [[f"q{i}", f"a{i}"] for i in range(3)]


def test_another_separator_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "a.csv").write_text(TABLE.format(";"))
    prepare(tmp_path / "a.csv", tmp_path / "out")
    assert [record.message for record in caplog.records if "separated by semicolons" in record.message] != []


def test_texts_that_a_table_holds_as_bytes_are_read(tmp_path: Path) -> None:
    turns = [[{"role": b"user", "content": b"q"}, {"role": b"assistant", "content": "\u00e9".encode()}]]
    parquet.write_table(pa.table({"messages": turns}), tmp_path / "a.parquet")
    prepare(tmp_path / "a.parquet", tmp_path / "out")
    assert load_prepared(tmp_path / "out")[0][0]["messages"][1]["content"] == "\u00e9"


REFUSED = {
    "a name twice": ("a.csv", "prompt, prompt\nq,a\n", "names the column 'prompt' twice.*rename"),
    "no names": ("a.csv", "prompt,completion,,\nq,a,,\n", "2 columns have no name in the header: 3, 4"),
    "rows in an object": ("a.json", json.dumps({"data": PAIRS}), r"holds rows in 'data'.*jq -c '\.\[.data.\]\[\]'"),
    "splits in an object": ("a.json", json.dumps({"train": PAIRS, "test": PAIRS}), "rows in 'train', 'test'"),
    "columns in an object": ("a.json", json.dumps({"prompt": ["a", "b"], "completion": ["c", "d"]}), "holds columns"),
    "a table of pandas": ("a.json", json.dumps({"prompt": {"0": "a"}, "completion": {"0": "c"}}), "holds columns"),
    "rows by key": ("a.json", json.dumps({"x": PAIRS[0], "y": PAIRS[1]}), "a row under each of its keys"),
    "a comma at the end of an array": ("a.json", json.dumps(PAIRS)[:-1] + ",]", "a comma stands before the end"),
    "a comma at the end of an object": ("a.json", '[{"prompt": "q", "completion": "a",}]', "comma stands before.*'}'"),
    "a comment before the rows": ("a.json", "// mine\n" + json.dumps(PAIRS), "a comment stands here"),
    "a comment within an array": ("a.json", "[\n# mine\n" + json.dumps(PAIRS)[1:], "a comment stands here"),
    "Python": ("a.json", repr(PAIRS), "single quotes, as Python"),
    "a value of Python": ("a.json", '[{"prompt": None}]', "'None' is no value of JSON"),
    "commas after lines": ("a.jsonl", ",\n".join(map(json.dumps, PAIRS)), "a comma stands after the value"),
    "Latin-1 in a table": ("a.csv", "prompt,completion\nq,\u00e9\n".encode("latin-1"), "iconv -f windows-1252"),
    "Latin-1 in lines": ("a.jsonl", '{"prompt": "\u00e9"}\n'.encode("latin-1"), "iconv -f windows-1252"),
    "Latin-1 in an array": ("a.json", '[{"prompt": "\u00e9"}]\n'.encode("latin-1"), "iconv -f windows-1252"),
    "UTF-16": ("a.csv", TABLE.format(",").encode("utf-16"), "iconv -f utf-16 -t utf-8 '.*a.csv'"),
    "UTF-16 without its mark": ("a.jsonl", json.dumps(PAIRS[0]).encode("utf-16-be"), "iconv -f utf-16be"),
    "UTF-32": ("a.json", json.dumps(PAIRS).encode("utf-32"), "iconv -f utf-32"),
    "no text": ("a.json", b"\x80\x04\x95\x00\x01\x02abc", "not UTF-8 text: it is no text"),
    "an archive": ("a.zip", archive(), "unpack it"),
    "an archive by another name": ("a.json", archive(), "is called JSON but is zip.*unpack it"),
    "a packed archive": ("a.tar.gz", b"x", "unpack it"),
    "a spreadsheet": ("a.xlsx", archive(), "save it as CSV"),
    "a pickle": ("a.pkl", b"\x80", "can run code"),
    "questions alone": ("a.jsonl", '{"prompt": "q"}\n', "holds questions, and no column their answers"),
    "a transcript": (
        "a.jsonl",
        json.dumps({"talk": "\n\nHuman: q\n\nAssistant: a"}),
        "--format hh --set columns.chosen=talk",
    ),
    "a registry": ("dataset_info.json", json.dumps({"mine": {"file_name": "a.json"}}), "data sets: mine.*--registry"),
    "a description": ("dataset_info.json", json.dumps({"features": {}, "splits": {}}), "holds no rows"),
    "a model's file": ("config.json", json.dumps({"model_type": "llama"}), "belongs to a model"),
}


@pytest.mark.parametrize(("name", "content", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_is_refused_with_what_helps(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=f"(?s){says}"):
        prepare(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_of_a_registry_of_a_model_and_of_archives(tmp_path: Path) -> None:
    listed, model, packed = (tmp_path / name for name in ("listed", "model", "packed"))
    for folder in (listed, model, packed):
        folder.mkdir()
    write(listed / "a.jsonl", PAIRS)
    (listed / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "a.jsonl"}}))
    (model / "config.json").write_text(json.dumps({"architectures": ["X"]}))
    (packed / "a.zip").write_bytes(archive())
    for folder, says in ((listed, "--registry"), (model, "is a model"), (packed, "but 'a.zip'")):
        with pytest.raises(InputError, match=says):
            prepare(folder, tmp_path / "out")


def test_that_a_file_is_blank_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.json").write_text(" \n \n")
    with pytest.raises(InputError, match="is empty"):
        prepare(tmp_path / "a.json", tmp_path / "out")
    assert "is empty" not in caplog.text


def test_a_column_that_is_ignored_is_so_in_its_own_spelling(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"Prompt": "q", "Response": "a", "Context": "c"}])
    prepare(path, tmp_path / "with")
    assert load_prepared(tmp_path / "with")[0][0]["messages"][0]["content"] == "c\n\nq"
    result = prepare(path, tmp_path / "out", ignore_columns="Context")
    assert load_prepared(tmp_path / "out")[0][0]["messages"][0]["content"] == "q"
    assert result.manifest.summary["format"] == "prompt-response (prompt=Prompt, response=Response)"


def test_answers_that_are_judged_are_taken_by_the_value_of_the_judgement(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "response": f"a{i}", "final_label": f"{i}"} for i in range(3)]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match=r"'final_label' judges the row.*--set where\.final_label=VALUE"):
        prepare(path, tmp_path / "out")
    assert prepare(path, tmp_path / "out", where={"final_label": "1"}).counts.kept == 1
    bad = [{**alpaca(i), "response_label": "unsafe" if i else "safe"} for i in range(3)]
    assert prepare(write(tmp_path / "b.jsonl", bad), tmp_path / "two").counts.undesired == 2
