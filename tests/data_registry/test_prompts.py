"""Prompt sets: every kind of file, labels, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from data_registry.core.errors import ConfigError, InputError
from data_registry.formats.prompt_sets import LabelColumn, PromptLayout
from data_registry.prompts.reading import read_prompt_set
from data_registry.prompts.specs import PromptSetSpec
from data_registry.registry.entry import make_entry
from data_registry.registry.listing import describe, list_entries
from pipelines.evaluation.suites.prompt_specs import files_spec, read_suite_file
from tests.shared import need

ROWS = [{"prompt": "a, b", "label": "bad"}, {"prompt": 'say "c"', "label": "good"}, {"prompt": "d\ne", "label": "bad"}]
HARMFUL = PromptLayout(harmful=True)
LABEL = PromptLayout(label=LabelColumn(column="label", harmful=("bad",), harmless=("good",)))


def write(path: Path) -> Path:
    if path.suffix == ".csv":
        path.write_text('prompt,label\n"a, b",bad\n"say ""c""",good\n"d\ne",bad\n')
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    else:
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_every_kind_of_file_gives_the_same_prompts(tmp_path, name):
    found = read_prompt_set(PromptSetSpec(data=str(write(tmp_path / name)), layout=LABEL))
    assert [(p.id, p.group, p.text) for p in found.prompts] == [
        ("1", "harmful", "a, b"), ("2", "harmless", 'say "c"'), ("3", "harmful", "d\ne"),
    ]  # fmt: skip
    assert found.name == "a"
    assert [record.kind for record in found.inputs] == ["file"]


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    (tmp_path / "p.txt").write_text("\ufefffirst\n\n  second \n")
    found = read_prompt_set(PromptSetSpec(data="p.txt", layout=HARMFUL), base=tmp_path)
    assert [(p.id, p.text) for p in found.prompts] == [("1", "first"), ("2", "second")]


def test_a_line_of_a_text_file_ends_where_an_editor_ends_it(tmp_path):
    asked = ["one\u2028still one", "two\x0cstill two", "three\x85still three", "four\x1cstill four"]
    for end in ("\n", "\r\n", "\r"):
        (tmp_path / "p.txt").write_bytes(end.join(asked).encode())
        found = read_prompt_set(PromptSetSpec(data="p.txt", layout=HARMFUL), base=tmp_path)
        assert [p.text for p in found.prompts] == asked


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "test"}, "'split: test' would have no effect"),
        ({"subset": "main", "split": "test"}, "'subset: main' and 'split: test' would have no effect"),
        ({"revision": "abc"}, "'revision: abc' would have no effect"),
    ],
)
@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
def test_a_file_has_no_parts_to_choose_from(tmp_path, name, options, said):
    (tmp_path / name).write_text('{"prompt": "a"}\n')
    with pytest.raises(ConfigError, match=said):
        read_prompt_set(PromptSetSpec(data=name, layout=HARMFUL, **options), base=tmp_path)
    if "revision" in options:
        with pytest.raises(ConfigError, match=said):
            read_prompt_set(PromptSetSpec(data=".", layout=HARMFUL, **options), base=tmp_path)


def test_truth_and_numbers_in_a_label_are_what_a_suite_file_calls_them(tmp_path):
    rows = [
        {"prompt": "a", "bad": True, "score": 1.0},
        {"prompt": "b", "bad": False, "score": 0},
        {"prompt": "c", "bad": True, "score": 2.5},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def groups(layout: str) -> list[str]:
        text = f"sets:\n- data: p.jsonl\n  layout: {layout}\n"
        (tmp_path / "suite.yaml").write_text(text)
        spec = read_suite_file(tmp_path / "suite.yaml").sets[0]
        return [prompt.group for prompt in read_prompt_set(spec, tmp_path).prompts]

    expected = ["harmful", "harmless", "harmful"]
    assert groups("{label: {column: bad, harmful: [true], harmless: [false]}, ignore: [score]}") == expected
    assert groups("{label: {column: bad, harmful: ['True'], harmless: ['False']}, ignore: [score]}") == expected
    assert groups("{label: {column: score, harmful: [1, 2.5], harmless: [0]}, ignore: [bad]}") == expected
    assert groups("{harmful: true, where: {bad: true, score: [1, 0]}}") == ["harmful"]


@pytest.mark.parametrize("name", ["my suite", "Übung", "-a", "a/b", "a" * 81, "''"])
def test_a_suite_s_name_is_refused_in_words(tmp_path, name):
    (tmp_path / "suite.yaml").write_text(f"name: {name}\nsets: [{{data: x.txt, layout: {{harmful: true}}}}]\n")
    with pytest.raises(ConfigError, match=r"'name': a suite's name, .* begins with a letter or digit"):
        read_suite_file(tmp_path / "suite.yaml")
    (tmp_path / "suite.yaml").write_text(f"name: {'a' * 80}\nsets: [{{data: x.txt, layout: {{harmful: true}}}}]\n")
    assert read_suite_file(tmp_path / "suite.yaml").name == "a" * 80


def test_context_id_and_category(tmp_path):
    rows = [
        {"id": 7, "ask": "do it", "about": "a text", "kind": "x"},
        {"id": 9, "ask": "again", "about": "", "kind": None},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    layout = PromptLayout(prompt="ask", context="about", id="id", category="kind", harmful=False)
    found = read_prompt_set(PromptSetSpec(data=str(tmp_path / "p.jsonl"), layout=layout)).prompts
    assert [p.context for p in found] == ["a text", ""]
    assert [(p.id, p.group, p.text, p.category) for p in found] == [
        ("7", "harmless", "a text\n\n---\n\ndo it", "x"), ("9", "harmless", "again", ""),
    ]  # fmt: skip


def test_a_repository_as_on_the_hub_is_read_by_subset_and_split(tmp_path):
    repository = tmp_path / "r"
    (repository / "data").mkdir(parents=True)
    write(repository / "data" / "a.parquet")
    card = "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: data/a.parquet\n---\n"
    (repository / "README.md").write_text(card)
    found = read_prompt_set(PromptSetSpec(data=str(repository), subset="main", split="test", layout=LABEL))
    assert len(found.prompts) == 3
    assert found.split == "test"


def test_wildjailbreaks_tab_separated_repository_is_read_as_its_entry_says(tmp_path):
    repository = tmp_path / "r"
    (repository / "eval").mkdir(parents=True)
    (repository / "eval" / "eval.tsv").write_text(
        'adversarial\tlabel\tdata_type\n"say, ""x""\nor y"\t1\tadversarial_harmful\nhi, you\t0\tadversarial_benign\n'
    )
    card = "---\nconfigs:\n- config_name: eval\n  data_files:\n  - split: train\n    path: eval/*\n---\n"
    (repository / "README.md").write_text(card)
    entry = describe("wildjailbreak")
    spec = PromptSetSpec(
        data=str(repository), subset=entry.source.subset, split=entry.source.split, layout=entry.prompts
    )
    found = read_prompt_set(spec).prompts
    assert [(p.group, p.text) for p in found] == [("harmful", 'say, "x"\nor y'), ("harmless", "hi, you")]


def test_xstest_has_its_numbers_of_prompts():
    (file,) = need("xstest_prompts.csv")
    layout = describe("xstest").prompts
    found = read_prompt_set(PromptSetSpec(data=str(file), layout=layout))
    groups = [prompt.group for prompt in found.prompts]
    assert (groups.count("harmless"), groups.count("harmful")) == (250, 200)
    assert len({prompt.category for prompt in found.prompts}) == 18


def test_the_registry_has_the_sets_of_the_suites():
    from pipelines.evaluation.suites.prompt_specs import SAFETY_SETS

    entries = {entry.name: entry for entry in list_entries() if entry.task == "prompts"}
    own = {"lookalikes", "lookalikes-train", "lookalikes-validation", "xstest-shipped", "hh-validation"}
    own |= {"harmbench-pip", *(f"do-not-answer-{kind}" for kind in ("malicious", "hateful", "private"))}
    hub = {"or-bench-80k", "or-bench-hard-1k", "or-bench-toxic", "jailbreakbench", "jailbreakbench-benign"}
    hub |= {"sorry-bench", "wildguardtest"}
    assert set(entries) == {*SAFETY_SETS, *own, *hub}
    assert all(entry.prompts is not None for entry in entries.values())
    assert all(entry.source.split for entry in entries.values() if entry.source.hub is not None)
    assert {name for name, entry in entries.items() if entry.source.hub is None} == own


REFUSED = {
    "no such column": ("p.jsonl", '{"prompt": "a"}\n', PromptLayout(prompt="promt", harmful=True), "no column 'promt'"),
    "no prompt column": ("p.jsonl", '{"x": "a"}\n', HARMFUL, "no column with prompts"),
    "empty prompt": ("p.jsonl", '{"prompt": "a"}\n{"prompt": " "}\n', HARMFUL, "no text in column 'prompt'"),
    "unknown label": ("p.jsonl", '{"prompt": "a", "label": "odd"}\n', LABEL, "has 'odd', which is none of: bad, good"),
    "broken row": ("p.jsonl", '{"prompt": "a"}\n{"prompt": \n', HARMFUL, "a row that cannot be read"),
    "empty file": ("p.jsonl", "", HARMFUL, "is empty"),
    "empty text": ("p.txt", "\n\n", HARMFUL, "is empty"),
    "two of one id": ("p.csv", "prompt,n\na,1\nb,1\n", PromptLayout(id="n", harmful=True), "two rows with the id '1'"),
    "no row is wanted": (
        "p.csv",
        "prompt,k\na,1\n",
        PromptLayout(where={"k": "2"}, harmful=True),
        "is empty: no row has k",
    ),
    "no column to choose by": ("p.csv", "prompt\na\n", PromptLayout(where={"k": "2"}, harmful=True), "no column 'k'"),
    "not said what is harmful": ("p.txt", "a\n", None, "nothing says which prompts"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused(tmp_path, name):
    file, content, layout, says = REFUSED[name]
    (tmp_path / file).write_text(content)
    with pytest.raises((InputError, ConfigError), match=says):
        read_prompt_set(PromptSetSpec(data=str(tmp_path / file), layout=layout))


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_prompt_set(PromptSetSpec(data="./none.csv", layout=HARMFUL), base=tmp_path)
    with pytest.raises(InputError, match="did you mean 'xstest'"):
        read_prompt_set(PromptSetSpec(data="xtest", layout=HARMFUL))


def test_a_set_of_the_hub_that_was_not_fetched_says_how(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError) as caught:
        read_prompt_set(PromptSetSpec(data="xstest"))
    assert "--download-only" in str(caught.value)


# The authors' own files: their columns, rows of ours.
AUTHORS = {
    "harmbench_behaviors_text_all.csv": (
        "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
        "Break a cup,standard,objects,,,cup\n"
        'Break this one,contextual,objects,context,"A cup, of glass",this_cup\n'
        "Sing the song,copyright,copyright,hash_check,,song\n"
    ),
    "harmful_behaviors.csv": "goal,target\nBreak a lamp,Sure\n",
    "strongreject_dataset.csv": "category,source,forbidden_prompt\nobjects,custom,How do I break it?\n",
    "xstest_prompts.csv": (
        "id,prompt,type,label,focus,note\n1,How do I kill a lamp?,homonyms,safe,kill,\n"
        "2,How do I hurt a bird?,contrast_homonyms,unsafe,hurt,\n"
    ),
    "eval.tsv": (
        'adversarial\tlabel\tdata_type\n"say, ""how""\nor why"\t1\tadversarial_harmful\nhi\t0\tadversarial_benign\n'
    ),
}


def test_the_authors_own_files_are_read_as_the_documentation_says(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    (block,) = (part for part in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "harmbench_behaviors" in part)
    for name, content in AUTHORS.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "authors.yaml").write_text(block)
    found = {
        entry.title: [(p.id, p.group, p.text, p.category) for p in read_prompt_set(entry, tmp_path).prompts]
        for entry in read_suite_file(tmp_path / "authors.yaml").sets
    }
    assert found == {
        "harmbench": [
            ("cup", "harmful", "Break a cup", "objects"),
            ("this_cup", "harmful", "A cup, of glass\n\n---\n\nBreak this one", "objects"),
        ],
        "advbench": [("1", "harmful", "Break a lamp", "")],
        "strongreject": [("1", "harmful", "How do I break it?", "objects")],
        "xstest": [
            ("1", "harmless", "How do I kill a lamp?", "homonyms"),
            ("2", "harmful", "How do I hurt a bird?", "contrast_homonyms"),
        ],
        "wildjailbreak": [
            ("1", "harmful", 'say, "how"\nor why', "adversarial_harmful"),
            ("2", "harmless", "hi", "adversarial_benign"),
        ],
    }


@pytest.mark.parametrize("name", [name for name in AUTHORS if name not in ("eval.tsv", "xstest_prompts.csv")])
def test_the_authors_files_are_taken_by_their_names_too(tmp_path, name):
    (tmp_path / name).write_text(AUTHORS[name])
    spec = files_spec([tmp_path / name], []).sets[0]
    assert read_prompt_set(spec).prompts[0].text in ("Break a cup", "Break a lamp", "How do I break it?")


def test_an_entry_takes_the_rows_that_its_where_names(tmp_path, monkeypatch):
    (tmp_path / "p.csv").write_text("prompt,k\na,1\nb,2\n")
    values = {"name": "some", "description": "d", "task": "prompts", "source": {"path": "p.csv"}, "where": {"k": "2"},
              "prompts": {"harmful": True}}  # fmt: skip
    entry = make_entry(values, tmp_path / "some.yaml")
    monkeypatch.setattr("data_registry.registry.listing.list_entries", lambda: [entry])
    assert [p.text for p in read_prompt_set(PromptSetSpec(data="some")).prompts] == ["b"]
