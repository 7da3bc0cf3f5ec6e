"""The page of a report, opened in a browser: it shows what it should, asks for nothing, and survives hostile texts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_registry.core.manifest import InputRecord
from data_registry.core.visible import visible
from pipelines.commands import report
from pipelines.configs.report import ReportConfig
from pipelines.reporting import writing
from tests.reporting.chromium import Chromium, find_chromium
from tests.reporting.report_inputs import judged, shares, store, suite, train

HOSTILE = "<script>document.title='run'</script> & \"co\""
ANSWERS = [
    "</script><script>document.title='ran'</script>",
    "<img src=x onerror=\"document.title='ran'\"> <b>bold</b> &amp; &lt;",
    "nothing\0 hidden \u202e reversed \x1b]0;t\x07",
    "\u0634\u0631\u062d \u0639\u0631\u0628\u064a \u05e9\u05dc\u05d5\u05dd \u6f22\u5b57",
    "x" * 5000,
    "a needle in the hay",
]
MANY = 2500


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Headless Chromium; absent, it is an error where CI says so, and elsewhere a reason to skip."""
    program = find_chromium()
    if program is None and os.environ.get("OGPSA_REQUIRE_BROWSER"):
        raise FileNotFoundError("these tests need chromium: apt-get install chromium")
    if program is None:
        pytest.skip("there is no chromium on this machine")
    found = Chromium(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    made_from = InputRecord(role="model", path=str(root / "gone"), kind="model", fingerprint="f" * 64)
    log = [{"step": step, "loss": 3 / step, "anchor/kl": 0.1 * step, "learning_rate": 1e-4} for step in range(1, 9)]
    samples = "".join(
        json.dumps({"step": step, "prompt": f"What is {n}?", "answer": f"{n} at {step}", "finish": "end"}) + "\n"
        for step in range(0, 80, 10)
        for n in range(3)
    )
    run = train(root / "runs" / "ours", log, samples=samples, inputs=[made_from])
    outcomes = {
        "base": ["full_compliance"] * 6,
        HOSTILE: ["full_refusal"] * 3 + ["full_compliance"] * 2 + ["unsure"],
        "ours": ["full_refusal"] * 5 + ["partial_refusal"],
    }
    for name, found in outcomes.items():
        scored, verdicts = judged("safety/xstest", {"harmful": found}, {"harmful": ANSWERS})
        right = {"base": 2000, "ours": 1900}.get(name, 1500)
        store(
            root / "r" / re.sub(r"\W", "", name), name, scored,
            suite("capability/maths", {"acc": shares(right, MANY)}), inputs=[run if name == "ours" else made_from],
            verdicts=verdicts,
        )  # fmt: skip
    config = ReportConfig(
        results=[str(root / "r")], start="base", out=root / "out", bootstrap=200, title="A <b>title", answers="all"
    )
    return report.run(config).path / writing.PAGE_FILE


def count_of(browser: Chromium, kind: str = "answers") -> str:
    return str(browser.ask(f"document.querySelector('[data-browser={kind}] .count').textContent"))


def texts_of(browser: Chromium, selector: str) -> list[str]:
    return list(browser.ask(f"[...document.querySelectorAll({json.dumps(selector)})].map((node) => node.textContent)"))


def choose(browser: Chromium, name: str, value: str) -> None:
    browser.ask(
        f"(() => {{ const node = document.getElementById({json.dumps(name)}); node.value = {json.dumps(value)};"
        " node.dispatchEvent(new Event('change')); })()"
    )


def test_the_page_shows_everything_and_runs_nothing_but_its_own(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri())
    assert browser.console == []
    assert browser.ask("document.title") == "A <b>title"
    document = str(browser.ask("document.documentElement.outerHTML"))
    assert document.count("<script") == 2
    for text in ("&lt;script&gt;", "capability/maths", "McNemar p", "Pareto front", "Lineage", "gone", "Legend"):
        assert text in document
    assert len(re.findall(r'src="data:image/svg\+xml;base64,', document)) == 2
    assert texts_of(browser, ".panels figcaption") == ["Training loss", "KL on anchors", "Learning rate"]
    # What it names outside of itself: nothing.
    assert set(re.findall(r'(?:src|href|url)\s*[=(]\s*"?(\w+):', document)) == {"data"}
    assert str(page.parent.parent) not in document


def test_hostile_answers_are_texts_to_the_last_sign(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri() + "#answers?suite=safety/xstest")
    browser.ask("document.querySelector('.controls input[type=checkbox]').click()")
    browser.ask("document.querySelectorAll('.answer button').forEach((button) => button.click())")
    shown = set(texts_of(browser, "[data-browser=answers] .answer .text"))
    assert shown == {visible(answer, block=True) for answer in ANSWERS}
    assert browser.ask("document.title") == "A <b>title"
    assert browser.ask("document.querySelectorAll('.answer img, .answer b, .answer script').length") == 0
    assert browser.console == []


def test_filters_by_suite_change_verdict_and_words(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri())
    assert count_of(browser) == "2506 of 2506 prompts, 1 to 10 shown"
    choose(browser, "a-suite", "safety/xstest")
    assert count_of(browser) == "6 of 2506 prompts, 1 to 6 shown"
    choose(browser, "a-to", HOSTILE)
    options = texts_of(browser, "#a-change option")
    assert options == ["changed or not", "any change (4)", "complied → refused (3)", "complied → unsure (1)"]
    choose(browser, "a-to", "ours")
    options = texts_of(browser, "#a-change option")
    assert options == [
        "changed or not", "any change (6)", "complied → refused (5)", "complied → refused in part (1)",
    ]  # fmt: skip
    choose(browser, "a-change", "complied → refused in part")
    assert count_of(browser).startswith("1 of")
    # The address names what is looked at, and leads there again.
    address = str(browser.ask("location.href"))
    browser.open(address)
    assert count_of(browser).startswith("1 of")
    assert sorted(texts_of(browser, "[data-browser=answers] .verdict")) == ["complied", "refused in part", "unsure"]
    choose(browser, "a-to", "")
    choose(browser, "a-change", "")
    choose(browser, "a-verdict", "unsure")
    assert count_of(browser).startswith("1 of")
    browser.open(page.as_uri() + "#answers?q=NEEDLE")
    assert count_of(browser).startswith("1 of")
    browser.open(page.as_uri() + "#answers?q=nowhere")
    assert count_of(browser) == "0 of 2506 prompts: nothing matches these filters"


def test_thousands_of_rows_are_few_nodes(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri())
    assert browser.ask("document.querySelectorAll('[data-browser=answers] .item').length") == 10
    assert browser.ask("document.querySelectorAll('*').length") < 1500
    browser.open(page.as_uri() + "#answers?page=251")
    assert count_of(browser) == "2506 of 2506 prompts, 2501 to 2506 shown"


def test_a_keyboard_is_enough(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri())
    browser.ask("document.getElementById('a-q').focus()")
    for letter in "needle":
        browser.press(letter, text=letter)
    browser.wait_for("document.querySelector('[data-browser=answers] .count').textContent.startsWith('1 of')")
    browser.press("Tab")
    browser.press(" ", "Space", " ")
    assert browser.ask("document.activeElement.checked") is True
    for _ in range(2):
        browser.press("Tab")
    assert browser.ask("document.activeElement.tagName") != "BODY"
    assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_harmful_answers_are_covered_until_someone_looks(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri() + "#answers?q=needle")
    first = "document.querySelector('.cell .answer')"
    assert "needle" not in str(browser.ask(f"{first}.textContent"))
    assert "because" not in str(browser.ask("document.querySelector('.cell .reason').textContent"))
    browser.ask(f"{first}.querySelector('button').click()")
    assert browser.ask(f"{first}.textContent") == "a needle in the hay"


def test_samples_are_shown_step_by_step(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri())
    assert count_of(browser, "samples") == "3 of 3 prompts, 1 to 3 shown"
    shown = texts_of(browser, "[data-browser=samples] .item:first-child h5")
    assert shown == ["step 0", "step 20", "step 50", "step 70"]
    assert texts_of(browser, "[data-browser=samples] .item:first-child .answer") == [
        f"0 at {n}" for n in (0, 20, 50, 70)
    ]


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_it_is_as_wide_as_its_window(browser: Chromium, page: Path, width: int) -> None:
    browser.open(page.as_uri() + "#answers?suite=safety/xstest", width=width)
    browser.ask("document.querySelector('.controls input[type=checkbox]').click()")
    browser.ask("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    assert browser.ask("document.documentElement.scrollWidth") == width


def test_on_paper_there_are_tables_and_no_controls(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri(), width=800)
    browser.print_as("print")
    seen = "[...document.querySelectorAll('%s')].filter((node) => node.checkVisibility()).length"
    assert browser.ask(seen % "select, input, button, nav") == 0
    assert browser.ask(seen % "table") >= 4
    assert browser.ask("document.documentElement.scrollWidth") == 800
    browser.print_as("")


def test_the_page_is_drawn_light_and_dark(browser: Chromium, page: Path, tmp_path: Path) -> None:
    pictures = {}
    for dark in (False, True):
        browser.open(page.as_uri(), width=1000, height=1600, dark=dark)
        browser.screenshot(tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as picture:
            pictures[dark] = np.asarray(picture.convert("L"), dtype=float)
    assert pictures[False].mean() > 200
    assert pictures[True].mean() < 80
    for picture in pictures.values():
        # Text and charts from top to bottom: no band of the page is empty.
        assert all(band.std() > 3 for band in np.array_split(picture, 6))


@pytest.mark.parametrize(
    "more", ['<img src="http://127.0.0.1:9/x.png" alt="">', "<script>document.title = 'ran'</script>"]
)
def test_the_check_sees_what_a_page_asks_for_or_runs(browser: Chromium, page: Path, more: str) -> None:
    broken = page.with_name("broken.html")
    broken.write_text(page.read_text().replace("</main>", f"{more}</main>"))
    browser.open(broken.as_uri())
    assert "Content Security Policy" in " ".join(browser.console)
    assert browser.ask("document.title") == "A <b>title"
