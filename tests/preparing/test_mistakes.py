"""Mistakes: an exit code, a message, and nothing left behind."""

import gzip
import json

import pytest

from data_registry.core.errors import ArtifactError, ConfigError, InputError
from data_registry.prepared import load_prepared
from data_registry.preparing import selection
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.core.config import resolve
from tests.preparing.small_sources import TEMPLATE, alpaca, config, prepare, write

# Mistakes: the error, its exit code, and that nothing is left behind


def xs(count):
    return ["broken"] * count


def with_chosen(count):
    return [
        {
            "prompt": f"{i}",
            "chosen": "A",
            "rejected": "B",
            "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        }
        for i in range(count)
    ]


MISTAKES = {
    "too many dropped": ([alpaca(0), *xs(1)], {}, InputError, "1 of 2 rows"),
    "none usable": ([{"instruction": "a", "output": ""}], {"max_dropped": 1}, InputError, "no usable row"),
    "none in the part": ([alpaca(0)], {"split": "heldout", "heldout_fraction": 1e-9}, InputError, "other part"),
    "none after the filter": ([{**alpaca(0), "k": "a"}], {"where": {"k": "b"}}, InputError, "1 filtered"),
    "too few": ([alpaca(0)], {"num_samples": 2}, InputError, "fewer than the 2"),
    "empty file": ([], {}, InputError, "is empty"),
    "all broken": (xs(10), {}, InputError, "a.jsonl:1: the line is not JSON"),
    "all broken after some rows": ([alpaca(0), *xs(3)], {"max_dropped": 0.5}, InputError, ":2: the line is not JSON"),
    "unknown format": ([alpaca(0)], {"format": "alpacca"}, ConfigError, "did you mean 'alpaca'"),
    "wrong format": ([alpaca(0)], {"format": "hh"}, InputError, "no 'chosen'"),
    "format not recognised": ([{"foo": 1}], {}, InputError, "the columns are: foo"),
    "several formats": (with_chosen(3), {}, InputError, "messages, preference"),
    "task that the format has not": ([alpaca(0)], {"format": "alpaca", "task": "preference"}, ConfigError, "not for"),
    "task that no format has": ([alpaca(0)], {"task": "preference"}, InputError, "not recognised for preference"),
    "unknown column": ([alpaca(0)], {"columns": {"promt": "instruction"}}, ConfigError, "no format has"),
    "unknown column of the format": (
        [alpaca(0)],
        {"format": "alpaca", "columns": {"promt": "instruction"}},
        ConfigError,
        "did you mean 'prompt'",
    ),
    "column that is not there": (
        [alpaca(0)],
        {"columns": {"prompt": "instructions"}},
        ConfigError,
        "did you mean 'instruction'",
    ),
    "filter column that is not there": ([alpaca(0)], {"where": {"lang": "en"}}, ConfigError, "no column 'lang'"),
    "unknown tag": ([alpaca(0)], {"tags": {"usr": "x"}}, ConfigError, "did you mean 'user'"),
    "tags of another format": (
        [alpaca(0)],
        {"format": "alpaca", "tags": {"user": "x"}},
        ConfigError,
        "--set tags needs --format auto or --format sharegpt",
    ),
    "split of a file": ([alpaca(0)], {"source_split": "train"}, ConfigError, "no splits"),
    "subset of a file": ([alpaca(0)], {"subset": "main"}, ConfigError, "no subsets"),
    "revision of a file": ([alpaca(0)], {"revision": "main"}, ConfigError, "of the hub"),
    "registry is missing": ([alpaca(0)], {"registry": "nowhere"}, ConfigError, "does not exist"),
    "tokenizer is missing": ([alpaca(0)], {"tokenizer": "./nowhere"}, InputError, "does not exist"),
}


@pytest.mark.parametrize(("rows", "options", "error", "text"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_have_an_exit_code_a_message_and_leave_nothing(tmp_path, rows, options, error, text):
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(error) as caught:
        prepare(path, tmp_path / "out", **options)
    assert text in str(caught.value)
    assert caught.value.exit_code == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]


SOURCES = {
    "unknown name": ("gsm9k", "did you mean 'gsm8k'"),
    "missing file": ("data/nothing.jsonl", "does not exist"),
    "prompts without answers": ("xstest", "nothing to train on"),
}


@pytest.mark.parametrize(("name", "text"), SOURCES.values(), ids=SOURCES)
def test_sources_that_are_none(tmp_path, name, text):
    with pytest.raises(InputError, match=text):
        prepare(name, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_entry_that_cannot_be_used_says_why(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"kto": {"hf_hub_url": "a/b", "columns": {"kto_tag": "x"}}}')
    with pytest.raises(InputError, match="KTO"):
        prepare("kto", tmp_path / "out", registry=str(tmp_path / "dataset_info.json"))


def test_tokenizer_without_a_chat_template_is_refused_before_reading(source, tmp_path, tokenizer):
    from transformers import AutoTokenizer

    bare = AutoTokenizer.from_pretrained(tokenizer)
    bare.chat_template = None
    bare.save_pretrained(tmp_path / "t")
    with pytest.raises(InputError, match="no chat template") as caught:
        prepare(source, tmp_path / "out", tokenizer=str(tmp_path / "t"))
    assert "--chat-template" in caught.value.fix
    (tmp_path / "c.jinja").write_text(TEMPLATE)
    result = prepare(source, tmp_path / "out", tokenizer=str(tmp_path / "t"), chat_template=str(tmp_path / "c.jinja"))
    assert "chat_template" in {record.role for record in result.manifest.inputs}


@pytest.mark.parametrize("option", [{"max_length": 5}, {"preview": 1}, {"chat_template": "x"}])
def test_options_that_need_a_tokenizer_say_so(option):
    with pytest.raises(ConfigError, match="needs --tokenizer"):
        config("a", "b", **option)


def test_share_of_a_part_that_is_not_asked_for_says_so():
    with pytest.raises(ConfigError, match="needs --split"):
        config("a", "b", heldout_fraction=0.2)
    assert config("a", "b", heldout_fraction=0.2, split="train").split == "train"


def test_missing_source_and_out_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        resolve(PrepareDataConfig)
    assert "name a source" in str(caught.value)
    assert "--out" in str(caught.value)
    assert resolve(PrepareDataConfig, flags={"list": True}).list


def test_existing_directories_are_not_touched(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(ArtifactError, match="will not be touched") as caught:
        prepare(source, tmp_path / "out", overwrite=True)
    assert caught.value.exit_code == 3
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_file_that_is_cut_off_in_the_middle_leaves_nothing(tmp_path):
    data = gzip.compress("".join(json.dumps(alpaca(i)) + "\n" for i in range(50_000)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cut off"):
        prepare(tmp_path / "a.jsonl.gz", tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl.gz"]


def test_hopeless_file_is_given_up_early(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "_HOPELESS_AFTER", 1000)
    path = write(tmp_path / "a.jsonl", [{"instruction": "a", "output": ""}] * 30_000)
    with pytest.raises(InputError, match="1000 of 1000 rows"):
        prepare(path, tmp_path / "out")


# Reading what was prepared


def test_loader_refuses_what_is_not_prepared(source, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_prepared(tmp_path / "none")
    with pytest.raises(InputError, match="prepare-data"):
        load_prepared(source)
    prepare(source, tmp_path / "out")
    with pytest.raises(InputError, match="--task preference"):
        load_prepared(tmp_path / "out", task="preference")


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "state"])
def test_loader_and_recipe_notice_damage(source, tmp_path, damage):
    out = tmp_path / "out"
    prepare(source, out)
    data = out / "data-00000.arrow"
    content = data.read_bytes()
    if damage == "cut":
        data.write_bytes(content[:-10])
    elif damage == "changed":
        data.write_bytes(content.replace(b"answer 7", b"ANSWER 7", 1))
    elif damage == "missing":
        data.unlink()
    else:
        (out / "state.json").write_text("{}")
    with pytest.raises(ArtifactError) as caught:
        load_prepared(out, verify=True)
    assert caught.value.exit_code == 3
    if damage != "changed":
        with pytest.raises(ArtifactError):
            load_prepared(out)
        with pytest.raises(ArtifactError):
            prepare(out, tmp_path / "two")


def test_artifact_of_another_kind_is_no_source(source, tmp_path):
    prepare(source, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**manifest, "kind": "basis"}))
    with pytest.raises(ArtifactError, match="is a basis"):
        prepare(tmp_path / "out", tmp_path / "two")
