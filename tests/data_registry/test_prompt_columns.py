"""Columns of prompt sets beside the request: taken in, refused, or named."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from data_registry.core.errors import InputError
from data_registry.formats.prompt_sets import LabelColumn, PromptLayout
from data_registry.prompts.reading import read_prompt_set
from data_registry.prompts.specs import Prompt, PromptSetSpec

NAN = float("nan")
HARMFUL = PromptLayout(harmful=True)


def read(tmp_path: Path, rows: list[dict[str, Any]], layout: PromptLayout = HARMFUL) -> list[Prompt]:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_prompt_set(PromptSetSpec(data=str(path), layout=layout)).prompts


@pytest.mark.parametrize("name", ["ContextString", "context", "passage"])
def test_a_context_that_no_one_named_is_part_of_the_request(tmp_path: Path, name: str) -> None:
    rows = [{"Behavior": "Break it.", name: "A cup."}, {"Behavior": "Sing.", name: NAN}, {"Behavior": "Hum.", name: ""}]
    found = read(tmp_path, rows)
    assert [prompt.text for prompt in found] == ["A cup.\n\n---\n\nBreak it.", "Sing.", "Hum."]
    assert [prompt.context for prompt in found] == ["A cup.", "", ""]
    ignoring = PromptLayout(harmful=True, ignore=(name,))
    assert [prompt.text for prompt in read(tmp_path, rows, ignoring)] == ["Break it.", "Sing.", "Hum."]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("system", "Be brief."),
        ("system_prompt", "Be brief."),
        ("history", [["q", "A"]]),
        ("chat_history", "q"),
        ("input", "tree"),
        ("images", ["a.png"]),
        ("ImageFileName", "a.png"),
        ("tools", [{"name": "t"}]),
        ("document", "A text."),
    ],
)
def test_what_belongs_to_the_request_and_has_no_place_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    rows = [{"prompt": "a"}, {"prompt": "b", name: value}]
    with pytest.raises(InputError, match=f"column '{name}'") as caught:
        read(tmp_path, rows)
    assert str(caught.value.where).endswith("p.jsonl:2")
    assert f"ignore: [{name}]" in str(caught.value.fix)
    assert len(read(tmp_path, rows, PromptLayout(harmful=True, ignore=(name,)))) == 2
    assert len(read(tmp_path, [{"prompt": "a", name: nothing} for nothing in (None, NAN, "", [])])) == 4


def test_a_label_that_contradicts_the_options_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "label": "unsafe"}, {"prompt": "b", "label": "safe"}]
    with pytest.raises(InputError, match="'safe', where all prompts are said to be harmful"):
        read(tmp_path, rows)
    with pytest.raises(InputError, match="'unsafe', where all prompts are said to be harmless"):
        read(tmp_path, rows, PromptLayout(harmful=False))
    layout = PromptLayout(label=LabelColumn(column="label", harmful=("unsafe",), harmless=("safe",)))
    assert [prompt.group for prompt in read(tmp_path, rows, layout)] == ["harmful", "harmless"]
    assert len(read(tmp_path, rows[:1])) == 1
    assert len(read(tmp_path, rows, PromptLayout(harmful=True, ignore=("label",)))) == 2


def test_other_columns_and_transcripts_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="data_registry")
    read(tmp_path, [{"prompt": f"\n\nHuman: {i}\n\nAssistant:", "target": "Sure", "id": i} for i in range(3)])
    (unused,) = [record.getMessage() for record in caplog.records if "not used" in record.getMessage()]
    assert "target (3)" in unused
    assert "id" not in unused.split("used: ")[1].split()
    assert sum("are transcripts" in record.getMessage() for record in caplog.records) == 1


def test_missing_values_are_no_prompts_and_no_categories(tmp_path: Path) -> None:
    for nothing in (NAN, "nan", None):
        with pytest.raises(InputError, match="no text in column 'prompt'"):
            read(tmp_path, [{"prompt": "a"}, {"prompt": nothing}])
    layout = PromptLayout(harmful=True, category="kind")
    assert [prompt.category for prompt in read(tmp_path, [{"prompt": "a", "kind": NAN}], layout)] == [""]
