"""Names in Markdown and CSV: they come out as they were, and nothing in them is markup or a formula."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from data_registry.core.visible import visible
from pipelines.core.escaping import csv_text, markdown_block, markdown_code, markdown_row, markdown_text

NAMES = st.text(st.sampled_from("ab_*`|<>&[]()$~\\!#-=+@ \n\t\x1b\u202e\u00e4\u6f22"), min_size=1, max_size=20)


def rendered(markdown: str, kind: str) -> list[str]:
    """The texts of all inline parts of a document, those of one kind alone."""
    found = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown):
        for child in token.children or ():
            assert child.type in ("text", kind, "softbreak", "text_special"), (child.type, markdown)
            found.append(child.content)
    return found


@settings(max_examples=300, deadline=None)
@given(NAMES)
def test_a_name_is_text_in_a_table_of_markdown(name: str) -> None:
    table = markdown_row(["run", "x"]) + "| --- | --- |\n" + markdown_row([name, "1"])
    assert "".join(rendered(table, "text")) == "runx" + visible(name).strip() + "1"


@settings(max_examples=200, deadline=None)
@given(NAMES)
def test_lines_stay_in_their_block(name: str) -> None:
    text = f"before\n{name}\nafter"
    tokens = MarkdownIt("commonmark").parse(markdown_block(text, "yaml") + "\n")
    assert [token.type for token in tokens] == ["fence"]
    assert tokens[0].content == visible(text, block=True) + "\n"


@pytest.mark.parametrize(("text", "code"), [("a`b", "`` a`b ``"), ("a|b", r"`a\|b`"), ("", ""), ("x\ny", r"`x\ny`")])
def test_code_is_fenced(text: str, code: str) -> None:
    assert markdown_code(text) == code


def test_usual_names_need_no_escapes() -> None:
    for name in ("gsm8k_cot", "run 3 (start)", "org/model-7B", "97.5 [90.0, 100.0]", "safe % ↑, n=40"):
        assert markdown_text(name) == csv_text(name) == name


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1"]


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_is_a_formula(name: str) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerow([csv_text(name), repr(-0.5)])
    ((shown, number),) = csv.reader(io.StringIO(stream.getvalue()))
    assert shown == "'" + visible(name)
    assert number == "-0.5"
