"""Prompt sets of the hub, read from local copies of their repositories: their columns, rows of ours."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from data_registry.core.errors import InputError
from data_registry.formats.prompt_sets import PromptLayout
from data_registry.prompts.reading import read_prompt_set
from data_registry.prompts.specs import PromptSetSpec
from data_registry.registry.listing import describe

NEW = ("jailbreakbench", "jailbreakbench-benign", "sorry-bench", "wildguardtest")


def card(folder: Path, *configs: tuple[str, str, str]) -> None:
    lines = [f"- config_name: {n}\n  data_files:\n  - split: {s}\n    path: {p}\n" for n, s, p in configs]
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nconfigs:\n{''.join(lines)}---\n# Card\n")


def jbb(folder: Path) -> None:
    parts = ("harmful", "benign")
    card(folder)
    entries = "".join(f"  - split: {part}\n    path: data/{part}-behaviors.csv\n" for part in parts)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: behaviors\n  data_files:\n{entries}---\n")
    (folder / "data").mkdir()
    for part, goal in zip(parts, ("Break a lamp", "Mend a lamp"), strict=True):
        with (folder / "data" / f"{part}-behaviors.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Index", "Goal", "Target", "Behavior", "Category", "Source"])
            writer.writerow([0, goal, "Here is how", "lamp", "Objects", "Original"])
            writer.writerow([1, f"{goal}, quickly", "Here is how", "lamp", "Objects", "Original"])


SORRY = [
    {"question_id": 1, "category": "1", "turns": ["How do I insult a cup?"], "prompt_style": "base"},
    {"question_id": 2, "category": "7", "turns": ['Say "it\'s broken"'], "prompt_style": "base"},
    {"question_id": 1, "category": "1", "turns": ["Ubj qb V?"], "prompt_style": "caesar"},
]


def sorry(folder: Path) -> None:
    card(folder, ("default", "train", "question.jsonl"))
    (folder / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SORRY))


def sorry_as_csv(folder: Path) -> None:
    card(folder, ("default", "train", "sorry.csv"))
    with (folder / "sorry.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(SORRY[0]))
        writer.writeheader()
        writer.writerows(SORRY)


def wildguard(folder: Path) -> None:
    card(folder, ("wildguardtest", "test", "test/*"), ("wildguardtrain", "train", "train/*"))
    labels = ("harmful", "unharmful", None)
    rows = [
        {
            "prompt": f"prompt {label}", "adversarial": False, "response": "No.", "prompt_harm_label": label,
            "response_refusal_label": "refusal", "response_harm_label": None, "subcategory": "objects",
            "response_refusal_agreement": 3.0, "prompt_harm_agreement": 2.0, "response_harm_agreement": None,
        }
        for label in labels
    ]  # fmt: skip
    for part in ("test", "train"):
        (folder / part).mkdir()
        parquet.write_table(pa.Table.from_pylist(rows), folder / part / f"wildguard_{part}.parquet")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which copies of repositories stand for those of the hub."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prompts(name: str) -> list[tuple[str, str, str, str]]:
    return [(p.id, p.group, p.text, p.category) for p in read_prompt_set(PromptSetSpec(data=name)).prompts]


def test_jailbreakbench_has_two_sides(hub: Path) -> None:
    jbb(hub / "JailbreakBench" / "JBB-Behaviors")
    assert prompts("jailbreakbench") == [
        ("0", "harmful", "Break a lamp", "Objects"), ("1", "harmful", "Break a lamp, quickly", "Objects"),
    ]  # fmt: skip
    assert prompts("jailbreakbench-benign")[0] == ("0", "harmless", "Mend a lamp", "Objects")


@pytest.mark.parametrize("write", [sorry, sorry_as_csv])
def test_sorry_bench_is_read_in_its_plain_style(hub: Path, write) -> None:
    write(hub / "sorry-bench" / "sorry-bench-202503")
    assert prompts("sorry-bench") == [
        ("1", "harmful", "How do I insult a cup?", "1"), ("2", "harmful", 'Say "it\'s broken"', "7"),
    ]  # fmt: skip


def test_wildguardtest_leaves_out_what_people_did_not_agree_on(hub: Path) -> None:
    wildguard(hub / "allenai" / "wildguardmix")
    assert prompts("wildguardtest") == [
        ("1", "harmful", "prompt harmful", "objects"), ("2", "harmless", "prompt unharmful", "objects"),
    ]  # fmt: skip


@pytest.mark.parametrize("turns", [[], ["a", "b"], "plain text", "['a', 'b']", None, [" "], "[1]", "[" * 500])
def test_a_request_in_a_list_is_alone_there(tmp_path: Path, turns: object) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"turns": turns}) + "\n")
    layout = PromptLayout(prompt="turns", in_list=True, harmful=True)
    with pytest.raises(InputError, match="no single text in column 'turns'"):
        read_prompt_set(PromptSetSpec(data=str(tmp_path / "p.jsonl"), layout=layout))


@pytest.mark.parametrize("name", [*NEW, "or-bench-hard-1k"])
def test_sets_of_the_hub_are_pinned_and_say_whose_they_are(name: str) -> None:
    entry = describe(name)
    revision = entry.source.revision
    assert revision is not None
    assert len(revision) == 40
    assert entry.licence != "not stated"
    assert entry.citation
    assert entry.homepage
