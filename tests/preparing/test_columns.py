"""Columns beside those that are used, from the file to what the command says of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from data_registry.core.errors import ConfigError, InputError
from data_registry.prepared import load_prepared
from ogpsa_cli.commands.prepare_data import _count_lines, _name_lines
from pipelines.commands import prepare_data
from tests.preparing.small_sources import alpaca, config, prepare, write

NAN = float("nan")


def answers(out: Path) -> list[str]:
    rows, _ = load_prepared(out)
    return [row["messages"][-1]["content"] for row in rows]


def kto(number: int, label: Any) -> dict[str, Any]:
    return {"prompt": f"question {number}", "completion": f"answer {number}", "label": label}


def test_columns_without_a_use_are_named_once_with_their_counts(tmp_path: Path) -> None:
    rows = [{**alpaca(i), "rating": 5, "note": "n" if i < 3 else None, "id": i} for i in range(1200)]
    result = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert result.manifest.summary["unused_columns"] == {"rating": 1200, "note": 3}
    lines = list(_name_lines(result.manifest))
    assert lines[0] == "  not used: rating (1,200 rows), note (3 rows)"
    assert "--set columns." in lines[1]
    assert lines[2].endswith("--ignore-columns rating,note")
    # As given on the command line, separated by commas.
    again = prepare(tmp_path / "a.jsonl", tmp_path / "two", ignore_columns=["rating, note", "colour"])
    assert "unused_columns" not in again.manifest.summary
    assert list(_name_lines(again.manifest)) == ["  --ignore-columns names what no row has: colour"]


def test_many_and_long_names_are_cut(tmp_path: Path) -> None:
    rows = [{**alpaca(i), f"{i} {'x' * 500}": 1} for i in range(300)]
    result = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert len(result.manifest.summary["unused_columns"]) == 201
    assert all(len(line) < 1000 for line in _name_lines(result.manifest))


def test_names_that_are_no_text_are_named_all_the_same(tmp_path: Path) -> None:
    rows = [{**alpaca(0), "half \ud800": 1, "turn\u001b[31m red": 2}]
    result = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert set(result.manifest.summary["unused_columns"]) == {"half \\ud800", "turn\u001b[31m red"}
    assert all(line.isprintable() for line in _name_lines(result.manifest))


def test_undesired_answers_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [kto(i, label) for i, label in enumerate([True, False, 1, 0, "true", "False", None])]
    result = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out", max_dropped=0)
    assert answers(tmp_path / "out") == ["answer 0", "answer 2", "answer 4", "answer 6"]
    assert (result.counts.undesired, result.counts.kept, result.counts.dropped) == (3, 4, {})
    assert any("3 left out: marked" in line for line in _count_lines(result.counts, result.manifest))
    left_out = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [(line["number"], line["reason"]) for line in left_out] == [
        (2, "undesired"),
        (4, "undesired"),
        (6, "undesired"),
    ]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_undesired_and_missing_values_of_tables(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        path.write_text(
            "prompt,completion,label,system\nq0,a0,True,nan\nq1,a1,False,\nq2,nan,True,\nq3,a3,True,NaN\nq4,,True,x\n"
        )
    else:
        columns = {
            "prompt": ["q0", "q1", "q2", "q3", "q4"],
            "completion": ["a0", "a1", None, "a3", ""],
            "label": [True, False, True, True, True],
            "system": [NAN] * 5,
        }
        parquet.write_table(pa.table(columns), path)
    result = prepare(path, tmp_path / "out", max_dropped=0.5)
    rows, _ = load_prepared(tmp_path / "out")
    assert [[entry["content"] for entry in row["messages"]] for row in rows] == [["q0", "a0"], ["q3", "a3"]]
    assert (result.counts.undesired, result.counts.dropped) == (1, {"empty": 2})


REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "undesired alone": ([kto(0, False), kto(1, False)], "no usable row.*2 marked as not to be learnt"),
    "tool calls": (
        [
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "A", "tool_calls": [{"id": 1}]},
                ]
            }
        ],
        "messages.tool_calls.*--ignore-columns messages.tool_calls",
    ),
    "margins": ([{"prompt": "q", "chosen": "A", "rejected": "B", "margin": 0.5}], "'margin'.*--ignore-columns margin"),
    "a list of rejected answers": (
        [{"query": "q", "response": "A", "rejected_responses": ["B", "C"]}],
        "'rejected_responses'.*preference",
    ),
}


@pytest.mark.parametrize(("rows", "says"), REFUSED.values(), ids=REFUSED)
def test_rows_whose_meaning_would_be_lost_are_refused_by_name(tmp_path: Path, rows: list[Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert caught.value.exit_code == 2
    assert re.search(says, str(caught.value), re.DOTALL)
    assert not (tmp_path / "out").exists()


SWIFT: dict[str, dict[str, Any]] = {
    "messages": {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "A"}],
        "rejected_response": "B",
    },
    "whole conversations": {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "A"}],
        "rejected_messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "B"}],
    },
    "query and response": {"query": "q", "response": "A", "rejected_response": "B"},
    "alpaca": {"instruction": "q", "input": "", "output": "A", "rejected": "B"},
}


@pytest.mark.parametrize("row", SWIFT.values(), ids=SWIFT)
def test_rejected_answers_beside_an_answer_make_pairs(tmp_path: Path, row: dict[str, Any]) -> None:
    path = write(tmp_path / "a.jsonl", [row])
    prepare(path, tmp_path / "out")
    (found,) = load_prepared(tmp_path / "out", task="preference")[0]
    assert {name: messages[-1]["content"] for name, messages in found.items()} == {
        "prompt": "q",
        "chosen": "A",
        "rejected": "B",
    }
    prepare(path, tmp_path / "pairs", task="preference")
    prepare(path, tmp_path / "sft", task="sft")
    assert answers(tmp_path / "sft") == ["A"]


def test_ignoring_permits_what_would_be_refused(tmp_path: Path) -> None:
    rows, _ = REFUSED["margins"]
    result = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out", ignore_columns="margin")
    assert result.counts.kept == 1


def test_a_column_is_not_both_a_field_and_ignored() -> None:
    with pytest.raises(ConfigError, match="'q' is named as a field and under --ignore-columns"):
        config("a", "b", columns={"prompt": "q"}, ignore_columns="q,r")


def test_a_plan_names_what_is_not_used_and_what_would_be_refused(tmp_path: Path) -> None:
    rows = [{**alpaca(0), "note": "n"}, {**alpaca(1), "tools": ["t"]}, {**alpaca(2), "label": False}]
    plan = dict(prepare_data.plan(config(write(tmp_path / "a.jsonl", rows), tmp_path / "out")))
    assert plan["not used"] == "note"
    assert "'tools'" in plan["meaning rows"]
    assert "'label'" in plan["undesired rows"]
    assert "not used" not in dict(prepare_data.plan(config(write(tmp_path / "b.jsonl", [alpaca(0)]), "o")))


INFO: dict[str, dict[str, Any]] = {
    "ranked": {"file_name": "pairs.jsonl", "ranking": True},
    "named": {
        "file_name": "pairs.jsonl",
        "ranking": True,
        "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"},
    },
    "one by one": {"file_name": "kto.jsonl", "columns": {"prompt": "prompt", "response": "completion"}},
    "masked": {"file_name": "masked.jsonl", "formatting": "sharegpt"},
}


def test_llama_factorys_registry_goes_through_the_same_checks(tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", [{"instruction": "Say.", "input": "x", "chosen": "A", "rejected": "B"}])
    write(tmp_path / "kto.jsonl", [kto(0, True), kto(1, False)])
    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "A", "weight": 0.5}]
    write(tmp_path / "masked.jsonl", [{"conversations": talk}])
    (tmp_path / "dataset_info.json").write_text(json.dumps(INFO))
    registry = str(tmp_path / "dataset_info.json")
    prepare("ranked", tmp_path / "1", registry=registry)
    assert load_prepared(tmp_path / "1")[0][0]["prompt"] == [{"role": "user", "content": "Say.\nx"}]
    assert prepare("named", tmp_path / "2", registry=registry).manifest.summary["unused_columns"] == {"input": 1}
    prepare("one by one", tmp_path / "3", registry=registry)
    assert answers(tmp_path / "3") == ["answer 0"]
    with pytest.raises(InputError, match="meaning 1"):
        prepare("masked", tmp_path / "4", registry=registry)


def test_an_entry_says_what_may_be_ignored(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{**alpaca(0), "note": "n", "label": "odd"}])
    (tmp_path / "mine.yaml").write_text(
        "description: Mine.\nsource: {path: a.jsonl}\nformat: alpaca\nignore_columns: [note, label]\n"
    )
    result = prepare("mine", tmp_path / "out", registry=str(tmp_path))
    assert (result.counts.kept, "unused_columns" in result.manifest.summary) == (1, False)
