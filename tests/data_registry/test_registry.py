"""The registry: entries that come with the project, the user's own, and LLaMA-Factory's dataset_info.json."""

import json
from pathlib import Path

import pytest

from data_registry.core.errors import ConfigError, InputError
from data_registry.formats.registry import read_row
from data_registry.registry.listing import describe, list_entries
from data_registry.testbed.pools import POOLS

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
REAL_INFO = SHARED / "ogpsa_upstream_dataset_info.json"


def own(entries, path):
    return {entry.name: entry for entry in entries if Path(entry.origin).is_relative_to(path)}


def test_shipped_entries_are_complete():
    entries = {entry.name: entry for entry in list_entries()}
    assert {"saferlhf", "ultrafeedback", "halueval", "hh-harmless", "gsm8k", "alpaca", "xstest"} <= set(entries)
    for entry in entries.values():
        assert entry.problem is None
        assert entry.licence != "not stated"
        assert entry.description.endswith(".")
        if entry.source.package is not None:
            assert entry.citation
            assert (entry.location().kind, entry.location().name) == ("package", entry.source.package)
        elif entry.source.path is not None:
            assert Path(entry.location().name).exists()
        elif entry.source.embedded is None:
            assert entry.citation
            assert entry.homepage.startswith("https://")
            assert entry.location().kind == "hub"
            assert entry.location().split is not None
        assert entry.task == "prompts" or entry.task in entry.tasks


def test_every_pool_of_the_testbed_has_its_entry():
    entries = {entry.source.embedded: entry for entry in list_entries() if entry.source.embedded is not None}
    assert {name: entry.task for name, entry in entries.items()} == {pool.name: pool.task for pool in POOLS.values()}
    assert all(entry.name == f"testbed-{pool}" for pool, entry in entries.items())


def test_unknown_name_suggests_near_ones():
    with pytest.raises(InputError, match="did you mean 'saferlhf'") as caught:
        describe("safer-rlhf")
    assert "--list" in caught.value.fix


def test_own_entries_from_a_folder_take_precedence(tmp_path):
    (tmp_path / "mine.yaml").write_text("description: Mine.\nsource: {path: sub/a.jsonl}\nformat: alpaca\n")
    (tmp_path / "more.yaml").write_text(
        "- {name: gsm8k, description: Other., source: {hub: me/gsm, split: test}, format: gsm8k}\n"
        "- {name: b, description: B., source: {embedded: assist}}\n"
    )
    entries = own(list_entries(tmp_path), tmp_path)
    assert set(entries) == {"mine", "gsm8k", "b"}
    assert entries["mine"].location().name == str(tmp_path / "sub" / "a.jsonl")
    assert describe("gsm8k", tmp_path).source.hub == "me/gsm"
    assert describe("gsm8k").source.hub == "openai/gsm8k"


BAD = {
    "unknown key": (
        "{description: x, source: {hub: a/b}, licnce: MIT}",
        "unknown key 'licnce' (did you mean 'licence'?)",
    ),
    "unknown key of the source": (
        "{description: x, source: {hub: a/b, splt: y}}",
        "unknown key 'source.splt' (did you mean 'split'?)",
    ),
    "two sources": ("{description: x, source: {hub: a/b, path: c}}", "one of hub, path, embedded and package"),
    "no source": ("{description: x, source: {}}", "one of hub, path, embedded and package"),
    "no description": ("{source: {hub: a/b}}", "'description' is missing"),
    "unknown format": ("{description: x, source: {hub: a/b}, format: alpacca}", "did you mean 'alpaca'"),
    "unknown column": (
        "{description: x, source: {hub: a/b}, format: alpaca, columns: {promt: y}}",
        "did you mean 'prompt'",
    ),
    "a task that the format has not": (
        "{description: x, source: {hub: a/b}, format: alpaca, task: preference}",
        "no rows for preference",
    ),
    "no mapping": ("hello", "'key: value' lines"),
    "no YAML": ("{", "not valid YAML"),
    "a key twice": ("description: a\ndescription: b", "twice"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_wrong_entries_are_configuration_errors_with_their_file(tmp_path, text, message):
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        list_entries(tmp_path)
    assert message in str(caught.value)
    assert "e.yaml" in str(caught.value)


def test_problems_of_all_entries_are_shown_at_once(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("{description: x, source: {hub: a/b}, format: nonsense, foo: 1}")
    (tmp_path / "c.yaml").write_text("{name: d, description: x, source: {hub: a/b}}")
    (tmp_path / "d.yaml").write_text("{name: d, description: x, source: {hub: a/b}}")
    with pytest.raises(ConfigError) as caught:
        list_entries(tmp_path)
    assert len(caught.value.problems) == 3
    assert "defined in" in caught.value.problems[2]


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_registry_that_is_none(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="does not exist" if name == "nothing" else "neither YAML"):
        list_entries(tmp_path / name)


# dataset_info.json

INFO = {
    "plain": {"hf_hub_url": "a/plain"},
    "mapped": {"file_name": "there.json", "columns": {"query": "prompt", "response": "chosen"}},
    "talks": {
        "hf_hub_url": "a/talks",
        "subset": "en",
        "split": "train_sft",
        "folder": "sub",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    },
    "pairs": {
        "hf_hub_url": "a/pairs",
        "ranking": True,
        "num_samples": 7,
        "columns": {"prompt": "q", "system": "sys", "chosen": "good", "rejected": "bad"},
    },
    "ranked_talks": {
        "hf_hub_url": "a/ranked",
        "ranking": True,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    },
    "gone": {"file_name": "[your path]/gone.json"},
    "pictures": {"hf_hub_url": "a/b", "formatting": "sharegpt", "columns": {"messages": "m", "images": "i"}},
    "tools": {"hf_hub_url": "a/b", "formatting": "sharegpt", "columns": {"messages": "m", "tools": "t"}},
    "kto": {"hf_hub_url": "a/b", "columns": {"prompt": "p", "response": "c", "kto_tag": "label"}},
    "text": {"hf_hub_url": "a/b", "columns": {"prompt": "text"}},
    "modelscope": {"ms_hub_url": "a/b"},
    "script": {"script_url": "a.py"},
    "no_place": {},
    "no_messages": {"hf_hub_url": "a/b", "formatting": "sharegpt", "columns": {"system": "s"}},
    "no_rejected": {"hf_hub_url": "a/b", "ranking": True, "columns": {"prompt": "p", "chosen": "c"}},
    "odd_formatting": {"hf_hub_url": "a/b", "formatting": "chatml"},
    "odd_key": {"hf_hub_url": "a/b", "colums": {}},
    "odd_columns": {"hf_hub_url": "a/b", "columns": ["a"]},
}
PROBLEMS = {
    "gone": "correct file_name",
    "pictures": "images",
    "tools": "call tools",
    "kto": "KTO",
    "text": "pre-training",
    "modelscope": "ModelScope",
    "script": "script",
    "no_place": "names no file",
    "no_messages": "name no messages",
    "no_rejected": "do not name chosen and rejected",
    "odd_formatting": "'chatml'",
    "odd_key": "did you mean 'columns'",
    "odd_columns": "must be objects",
}


@pytest.fixture
def info(tmp_path):
    (tmp_path / "there.json").write_text("[]")
    (tmp_path / "dataset_info.json").write_text(json.dumps(INFO))
    return own(list_entries(tmp_path), tmp_path)


def test_every_entry_is_usable_or_says_why_not(info):
    assert set(info) == set(INFO)
    for name, entry in info.items():
        if name in PROBLEMS:
            assert PROBLEMS[name] in entry.problem
        else:
            assert entry.problem is None


def test_entries_mean_what_they_mean_to_llama_factory(info):
    talks = info["talks"].location()
    assert (talks.kind, talks.name, talks.subset, talks.split, talks.data_dir) == (
        "hub",
        "a/talks",
        "en",
        "train_sft",
        "sub",
    )
    assert info["plain"].location().split == "train"
    assert info["pairs"].num_samples == 7

    row = {"prompt": "a", "chosen": "A", "instruction": "not named, so not there", "output": "B"}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "A"}]
    assert read_row(row, info["mapped"].layout(), "sft") == {"messages": messages}
    assert read_row({"messages": messages}, info["talks"].layout(), "sft") == {"messages": messages}
    row = {"q": "a", "sys": "s", "good": "A", "bad": "B", "prompt": "not named"}
    assert read_row(row, info["pairs"].layout(), "preference") == {
        "prompt": [{"role": "system", "content": "s"}, messages[0]],
        "chosen": [messages[1]],
        "rejected": [{"role": "assistant", "content": "B"}],
    }
    assert (info["pairs"].task, info["ranked_talks"].task, info["plain"].task) == ("preference", "preference", "sft")


@pytest.mark.parametrize("text", ["[1]", '{"a": 1}', "{", ""], ids=["list", "no objects", "cut", "empty"])
def test_other_json_is_no_registry(tmp_path, text):
    file = tmp_path / "dataset_info.json"
    file.write_text(text)
    with pytest.raises(ConfigError):
        list_entries(file)


@pytest.mark.skipif(not REAL_INFO.is_file(), reason="the shared development data is not here")
def test_registry_of_the_original_code_loads_whole():
    entries = own(list_entries(REAL_INFO), SHARED)
    assert len(entries) == 139
    usable = {name for name, entry in entries.items() if entry.problem is None}
    assert {"alpaca_en_demo", "dpo_en_demo", "ultrafeedback", "ultrachat_200k", "orca_pairs"} <= usable
    assert "correct file_name" in entries["ultrafeedback_dpo"].problem
    assert entries["ultrafeedback_dpo"].problem != entries["kto_en_demo"].problem
