"""Answers side by side: states, reasons, which items a page holds, and what is covered or left out."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_registry.core.errors import ConfigError
from data_registry.core.visible import visible
from pipelines.commands import report
from pipelines.configs.report import ReportConfig
from pipelines.core.config import resolve
from pipelines.evaluation.contract.answer import StoredAnswer
from pipelines.reporting.answers import NO_REASON, make_book
from pipelines.reporting.books import Book, Cell, Row, pack
from pipelines.reporting.runs import read_runs
from tests.reporting.report_inputs import judged, shares, store, suite

REFUSED, COMPLIED, PARTLY = "full_refusal", "full_compliance", "partial_refusal"
OUTCOMES = {
    "base": {"harmful": [COMPLIED, COMPLIED, REFUSED], "harmless": [COMPLIED, COMPLIED]},
    "ours": {"harmful": [REFUSED, "unsure", PARTLY], "harmless": [COMPLIED, REFUSED]},
}


def texts(run: str) -> dict[str, list[str]]:
    return {group: [f"{run} on {group} {n}" for n in range(len(found))] for group, found in OUTCOMES[run].items()}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A judged suite of two runs; of the second one, answers as they were given are there too."""
    for run, outcomes in OUTCOMES.items():
        found, verdicts = judged("safety/xstest", outcomes, texts(run))
        answers = [
            StoredAnswer(item.suite, item.id, item.group, "", f"question {item.id}", item.prompt, item.answer, None,
                         "length" if item.id == "harmful/1" else "end", 5, 7)
            for item in found[1]
        ]  # fmt: skip
        store(tmp_path / "r" / run, run, found, suite("capability/maths", {"acc": shares(2, 3)}),
              verdicts=verdicts, answers=answers if run == "ours" else ())  # fmt: skip
    return tmp_path / "r"


def book_of(path: Path, *, most: int | None = None, harmful: str = "covered") -> Book:
    book, _ = make_book(read_runs([str(path)]), most=most, harmful=harmful)
    assert book is not None
    return book


def cells(book: Book, column: int) -> dict[str, Cell]:
    return {row.name: cell for row in book.rows for cell in row.cells if cell.column == column}


def unpacked(page: str) -> dict[str, Any]:
    block = page.split('id="books">')[1].split("<")[0]
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(block)))
    return found


def test_every_answer_has_its_verdict_and_the_reason(two: Path) -> None:
    book = book_of(two)
    assert book.columns == ("base", "ours")
    ours = cells(book, 1)
    assert [ours[f"harmful/{n}"].state for n in range(3)] == ["refused", "unsure", "refused in part"]
    assert [cells(book, 0)[f"harmless/{n}"].state for n in range(2)] == ["complied", "complied"]
    assert ours["harmful/0"].reason == "refusal: because of harmful/0"
    assert ours["harmful/1"].note == "cut off at the limit of tokens; most likely refused"
    assert ours["acc/0"].state == "right"
    assert ours["acc/2"].state == "wrong"
    assert ours["acc/0"].reason.startswith("rule: ")


def test_the_request_stands_there_as_the_user_put_it(two: Path) -> None:
    row = next(row for row in book_of(two).rows if row.name == "harmful/0")
    assert (row.prompt, row.group) == ("question harmful/0", "harmful, sort")
    assert {cell.column for cell in row.cells} == {0, 1}


def test_results_without_verdicts_say_that_no_reason_was_recorded(tmp_path: Path) -> None:
    found, _ = judged("safety/xstest", OUTCOMES["ours"], texts("ours"))
    store(tmp_path / "r", "ours", found)
    ours = cells(book_of(tmp_path / "r"), 0)
    assert {cell.reason for cell in ours.values()} == {NO_REASON}
    assert [ours[f"harmless/{n}"].state for n in range(2)] == ["complied", "refused"]
    assert ours["harmful/0"].state == "refused"


def test_harmful_answers_are_covered_shown_or_left_out(two: Path) -> None:
    covered = cells(book_of(two), 0)
    assert [covered[f"harmful/{n}"].is_covered for n in range(3)] == [True, True, False]
    assert not covered["harmless/0"].is_covered
    assert not any(cell.is_covered for cell in cells(book_of(two, harmful="shown"), 0).values())
    out = cells(book_of(two, harmful="left-out"), 0)
    assert [out[f"harmful/{n}"].answer for n in range(3)] == [None, None, "base on harmful 2"]
    assert "harmful/0" not in out["harmful/0"].reason


def test_a_page_without_harmful_answers_does_not_hold_them(two: Path, tmp_path: Path) -> None:
    for harmful, is_there in (("covered", True), ("left-out", False)):
        config = ReportConfig(results=[str(two)], out=tmp_path / harmful, harmful_answers=harmful)
        text = json.dumps(unpacked((report.run(config).path / "report.html").read_text()))
        assert ("base on harmful 0" in text) == is_there
        assert "base on harmful 2" in text


def test_an_expected_answer_to_a_harmful_request_is_in_no_page_that_covers_it(tmp_path: Path) -> None:
    found, items = suite("testbed", {"safe": shares(1, 2)})
    store(tmp_path / "r", "m", (found, [replace(item, expected="take this") for item in items]))
    assert {row.expected for row in book_of(tmp_path / "r").rows} == {""}
    assert {row.expected for row in book_of(tmp_path / "r", harmful="shown").rows} == {"take this"}
    assert [cell.state for cell in cells(book_of(tmp_path / "r"), 0).values()] == ["refused", "complied"]


def test_of_too_many_items_those_come_first_on_which_runs_differ(tmp_path: Path) -> None:
    for run, right in (("a", 90), ("b", 97)):
        store(tmp_path / "r" / run, run, suite("capability/maths", {"acc": shares(right, 100)}),
              suite("capability/facts", {"acc": shares(2, 3)}))  # fmt: skip
    runs = read_runs([str(tmp_path / "r")])
    book, choices = make_book(runs, most=40, harmful="covered")
    assert book is not None
    maths = [row.name for row in book.rows if row.suite == "capability/maths"]
    assert maths == [f"acc/{n}" for n in [*range(10), *range(90, 97)]]
    assert [(choice.suite, choice.shown, choice.stored) for choice in choices] == [
        ("capability/maths", 17, 100), ("capability/facts", 3, 3),
    ]  # fmt: skip
    assert make_book(runs, most=0, harmful="covered") == (None, [])


@pytest.mark.parametrize(("answers", "most"), [("all", None), ("none", 0), ("500", 500), (500, 500), (" 7 ", 7)])
def test_answers_are_a_number_or_a_word(answers: Any, most: int | None) -> None:
    assert ReportConfig(results=["r"], out=Path("o"), answers=answers).most_answers == most


@pytest.mark.parametrize("answers", ["some", "-3", "0", "", "1.5", "²", None, True])
def test_other_answers_are_refused(answers: Any) -> None:
    with pytest.raises(ConfigError, match="--answers"):
        resolve(ReportConfig, values={"results": ["r"], "out": "o", "answers": answers})


def test_without_answers_there_is_no_script(two: Path, tmp_path: Path) -> None:
    page = (
        report.run(ReportConfig(results=[str(two)], out=tmp_path / "o", answers="none")).path / "report.html"
    ).read_text()
    assert "<script" not in page
    assert "script-src" not in page
    assert "--answers none" in page


ANY = st.text(st.characters(exclude_categories=()), max_size=40) | st.sampled_from(
    ["</script><script>x", "\0", "\u202eabc", "<!--", "]]>", "\ud800", "שלום", "a" * 3000, "\u2028"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ANY, ANY, ANY, st.booleans()), max_size=5))
def test_a_block_holds_every_text_and_no_sign_that_could_end_it(found: list[tuple[str, str, str, bool]]) -> None:
    rows = tuple(
        Row("s", str(n), "g", prompt, "", (Cell(0, answer, "refused", reason, "", covered), Cell(1, None)))
        for n, (prompt, answer, reason, covered) in enumerate(found)
    )
    block = pack([Book("t", "answers", ("one", "two"), rows)])
    assert set(block) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    read = json.loads(gzip.decompress(base64.b64decode(block)))
    strings, (book,) = read["strings"], read["books"]
    for row, (prompt, answer, reason, covered) in zip(book["rows"], found, strict=True):
        assert strings[row[3]] == visible(prompt, block=True)
        first, second = row[5][:6], row[5][6:]
        assert (strings[first[1]], strings[first[3]]) == (visible(answer, block=True), visible(reason, block=True))
        assert (first[5], second[1]) == (int(covered), -1)
