"""The recipe of prepare-data: what becomes of every row, and that mistakes leave nothing behind."""

import gzip
import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_registry.core.errors import ArtifactError, ConfigError, InputError
from data_registry.prepared import load_prepared
from data_registry.preparing import selection
from data_registry.testbed.pools import POOLS
from data_registry.testbed.pools import rows as pool_rows
from pipelines.commands import prepare_data
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.core.config import resolve

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared development data is not here")

TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages here') }}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<u> ' + m['content'] + ' ' }}{% else %}{{ '<b> ' }}"
    "{% generation %}{{ m['content'] + ' <end>' }}{% endgeneration %}{% if not loop.last %}{{ ' ' }}{% endif %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<b> ' }}{% endif %}"
)


def alpaca(number):
    return {"instruction": f"question {number}", "input": "", "output": f"answer {number}"}


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def config(source, out, **options):
    return resolve(PrepareDataConfig, flags={"source": str(source), "out": str(out), **options})


def prepare(source, out, **options):
    return prepare_data.run(config(source, out, **options))


def questions(out):
    return [row["messages"][-2]["content"] for row in load_prepared(out)[0]]


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "a.jsonl", [alpaca(i) for i in range(1500)])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<u>": 1, "<b>": 2, "<end>": 3}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="<end>", chat_template=TEMPLATE
    ).save_pretrained(path)
    return str(path)


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
    rows = [alpaca(i % 2000) if i % 50 else "broken" for i in range(2500)]
    path = write(tmp_path / "a.jsonl", rows)
    options = {"num_samples": 300, "split": "train", "max_dropped": 0.5}
    alone = prepare(path, tmp_path / "one", **options)
    together = prepare(path, tmp_path / "two", num_workers=2, **options)
    assert alone.manifest.fingerprint == together.manifest.fingerprint
    assert alone.counts == together.counts
    assert alone.counts.duplicates > 0


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


# Tokenizer, length, preview


def long_rows():
    rows = [{"prompt": "q " * 5, "completion": "a " * 5}, {"prompt": "q " * 5, "completion": "b " * 30}]
    return [*rows, {"prompt": "q " * 30, "completion": "c"}, {"prompt": "q " * 9, "completion": "d"}]


def test_rows_without_a_trained_token_within_the_length_are_dropped(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", long_rows())
    result = prepare(path, tmp_path / "out", tokenizer=tokenizer, max_length=12, max_dropped=0.5, num_workers=2)
    # 13, 38, 33 and 13 tokens. The 12th of the last is d: kept. <u> and 30 q leave no room for an answer.
    assert result.counts.dropped == {"no_trained_token": 1}
    assert (result.counts.kept, result.counts.cut) == (3, 3)
    assert {record.role for record in result.manifest.inputs} == {"source", "tokenizer"}
    tight = prepare(path, tmp_path / "out2", tokenizer=tokenizer, max_length=11, max_dropped=0.5)
    assert tight.counts.dropped == {"no_trained_token": 2}
    # What is kept can be trained on.
    from pipelines.tokens.conversations import encode_dataset
    from pipelines.tokens.tokenizer import load_tokenizer

    rows, _ = load_prepared(tmp_path / "out")
    assert len(encode_dataset(rows, load_tokenizer(tokenizer), 12)) == 3


def test_both_answers_of_a_pair_must_have_a_trained_token(tmp_path, tokenizer):
    rows = [{"prompt": "q " * 5, "chosen": "a", "rejected": "b"}, {"prompt": "q " * 20, "chosen": "a", "rejected": "b"}]
    path = write(tmp_path / "a.jsonl", rows)
    result = prepare(path, tmp_path / "out", tokenizer=tokenizer, max_length=12, max_dropped=0.5, preview=5)
    assert result.counts.dropped == {"no_trained_token": 1}
    assert [[text.strip() for text, trained in row if trained] for row in result.preview] == [["<unk>", "<end>"]] * 2


def test_answers_within_the_prompt_of_a_pair_do_not_count_as_trained(tmp_path, tokenizer):
    prompt = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "q " * 20},
    ]
    answers = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    path = write(tmp_path / "a.jsonl", [{"prompt": prompt, **answers}, {"prompt": prompt[:1], **answers}])
    result = prepare(path, tmp_path / "out", tokenizer=tokenizer, max_length=12, max_dropped=0.5)
    assert result.counts.dropped == {"no_trained_token": 1}


def test_rows_that_the_template_refuses_are_dropped(tmp_path, tokenizer):
    rows = [
        {"messages": [{"role": role, "content": "text"} for role in roles]}
        for roles in (["user", "assistant"], ["system", "user", "assistant"])
    ]
    result = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out", tokenizer=tokenizer, max_dropped=0.5)
    assert result.counts.dropped == {"template": 1}
    assert "no system messages here" in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_preview_shows_what_is_trained_also_when_up_to_date(source, tmp_path, tokenizer):
    for _ in range(2):
        result = prepare(source, tmp_path / "out", tokenizer=tokenizer, preview=2)
        assert len(result.preview) == 2
        assert [trained for _, trained in result.preview[0]] == [False, False, False, False, True, True, True]
        assert result.preview[0][-1][0].strip() == "<end>"


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
        "for format sharegpt",
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


def test_plan_says_what_would_be_done_and_does_nothing(source, tmp_path):
    lines = dict(prepare_data.plan(config(source, tmp_path / "out", num_samples=5, split="train")))
    assert lines["format"] == "alpaca"
    assert lines["rows"] == "5, seed 0"
    assert not (tmp_path / "out").exists()


# Real files

REAL = {
    "hh pairs": ("hh_rlhf_harmless_base_test.jsonl.gz", {}, "hh", "preference", 2299, {"empty": 4, "roles": 9}),
    "hh for sft": (
        "hh_rlhf_harmless_base_test.jsonl.gz",
        {"task": "sft"},
        "hh",
        "sft",
        2300,
        {"empty": 4, "roles": 8},
    ),
    "HaluEval": ("halueval_general.jsonl", {"where": {"hallucination": "no"}}, "qa", "sft", 3692, {}),
    "GSM8K": ("gsm8k_test.jsonl", {}, "gsm8k", "sft", 1319, {}),
    "alpaca": ("alpaca_en_demo.json", {}, "alpaca", "sft", 985, {}),
    "ranked sharegpt": ("dpo_en_demo.json", {}, "sharegpt", "preference", 295, {}),
    "XSTest completions": ("xstest_v2_completions_llama2orig.csv", {}, "prompt-completion", "sft", 450, {}),
}


@needs_shared
@pytest.mark.parametrize(("name", "options", "format_name", "task", "rows", "dropped"), REAL.values(), ids=REAL)
def test_real_files(tmp_path, name, options, format_name, task, rows, dropped):
    result = prepare(SHARED / name, tmp_path / "out", **options)
    assert result.manifest.summary["format"] == format_name
    assert result.manifest.summary["task"] == task
    assert (result.counts.kept, result.counts.dropped) == (rows, dropped)


@needs_shared
def test_real_prompts_without_answers_are_refused(tmp_path):
    with pytest.raises(InputError, match="id, prompt, type"):
        prepare(SHARED / "xstest_prompts.csv", tmp_path / "out")


@needs_shared
def test_real_registry_of_llama_factory(tmp_path):
    registry = str(SHARED / "ogpsa_upstream_dataset_info.json")
    result = prepare("dpo_en_demo", tmp_path / "out", registry=registry)
    assert result.counts.kept == 295
    with pytest.raises(InputError, match="correct file_name"):
        prepare("saferlhf2_dpo", tmp_path / "out2", registry=registry)
