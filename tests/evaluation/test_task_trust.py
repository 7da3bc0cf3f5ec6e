"""Tasks of one's own for lm-eval: code that they bring is refused by name, and nothing of it runs before that."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from data_registry.core.errors import InputError
from pipelines.commands import evaluate
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.evaluation.lm_eval.trust import refuse_programs

_CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n\ndef ask(doc):\n    return doc['q']\n"
_ROWS = [{"q": f"is {number} even ?", "label": number % 2} for number in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task without code, and a module beside it."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _ROWS))
    (folder / "code.py").write_text(_CODE)
    write(folder, "plain")
    return folder


def write(folder: Path, name: str, *lines: str, **changes: Any) -> None:
    """A file of a task; ``lines`` are what YAML text alone can say."""
    task = {
        "task": name, "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}, "doc_to_text": "{{q}}",
        "doc_to_choice": ["yes", "no"], "doc_to_target": "label",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    } | changes  # fmt: skip
    task = {key: value for key, value in task.items() if value is not None}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task) + "".join(f"{line}\n" for line in lines))


def plan(folder: Path, *names: str, trust: bool = False) -> list[tuple[str, str]]:
    return evaluate.plan(
        EvaluateConfig(
            model=str(folder), suite=["capability"], task=list(names), task_dir=folder, out=folder / "r",
            trust_remote_code=trust, download_only=True,
        )
    )  # fmt: skip


def direct(folder: Path) -> str:
    write(folder, "bad", "doc_to_text: !function code.ask", doc_to_text=None)
    return "!function code.ask"


def included(folder: Path) -> str:
    (folder / "common").write_text("doc_to_text: !function code.ask\n")
    write(folder, "bad", doc_to_text=None, include="common")
    return "!function code.ask"


def included_twice_over(folder: Path) -> str:
    (folder.parent / "far").write_text("doc_to_text: !function code.ask\n")
    (folder / "near").write_text(f"include: {folder.parent / 'far'}\n")
    write(folder, "bad", doc_to_text=None, include=["near"])
    return "!function code.ask"


def in_a_group(folder: Path) -> str:
    write(folder, "member", "doc_to_text: !function code.ask", doc_to_text=None)
    (folder / "group.yaml").write_text("group: bad\ntask: [plain, {group: inner, task: [member]}]\n")
    return "!function code.ask"


def in_options_of_a_group(folder: Path) -> str:
    (folder / "group.yaml").write_text("group: bad\ntask: [{task: plain, process_docs: !function code.ask}]\n")
    return "!function code.ask"


def with_a_tag(folder: Path) -> str:
    write(folder, "member", "doc_to_text: !function code.ask", doc_to_text=None, tag=["bad"])
    return "!function code.ask"


def a_class(folder: Path) -> str:
    (folder / "bad.yaml").write_text("task: bad\nclass: !function code.ask\n")
    return "!function code.ask"


def a_function_of_a_library(folder: Path) -> str:
    write(folder, "bad", "process_docs: !function os.system")
    return "!function os.system"


def a_metric_that_is_a_program(folder: Path) -> str:
    write(folder, "bad", metric_list=[{"metric": str(folder / "code.py"), "aggregation": "mean"}])
    return f"metric {folder / 'code.py'}"


def a_metric_of_the_hub(folder: Path) -> str:
    write(folder, "bad", metric_list=[{"metric": "acc", "hf_evaluate": True}])
    return "metric acc"


_WAYS = (
    direct, included, included_twice_over, in_a_group, in_options_of_a_group, with_a_tag, a_class,
    a_function_of_a_library, a_metric_that_is_a_program, a_metric_of_the_hub,
)  # fmt: skip


@pytest.mark.parametrize("way", _WAYS, ids=lambda way: way.__name__)
def test_a_task_that_brings_code_is_refused_before_it_runs(folder: Path, way: Any) -> None:
    names = way(folder)
    with pytest.raises(InputError) as caught:
        plan(folder, "plain", "bad")
    assert "the task 'bad' runs Python code" in caught.value.what
    assert names in caught.value.what
    assert "--trust-remote-code" in str(caught.value.fix)
    assert not (folder / "ran").exists()


def test_code_runs_where_it_is_trusted_and_neighbours_need_no_trust(folder: Path) -> None:
    direct(folder)
    assert plan(folder, "plain") == [("capability/plain", "4 items, 0 shots, multiple_choice, without chat template")]
    assert not (folder / "ran").exists()
    assert plan(folder, "bad", trust=True)[0][0] == "capability/bad"
    assert (folder / "ran").exists()


def test_templates_reach_nothing_but_the_document(folder: Path) -> None:
    write(folder, "bad", doc_to_text="{{ q.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(InputError, match=r"a template of a task tries to run Python code"):
        plan(folder, "bad")


def test_a_file_of_a_task_that_includes_itself_ends(folder: Path) -> None:
    (folder / "bad.yaml").write_text("task: bad\ninclude: bad.yaml\ndoc_to_text: !function code.ask\n")
    entry = SimpleNamespace(name="bad", yaml_path=folder / "bad.yaml", tags={"bad"}, cfg={"task": ["bad"]})
    with pytest.raises(InputError, match="runs Python code"):
        refuse_programs(SimpleNamespace(task_index={"bad": entry}), ["bad"])
