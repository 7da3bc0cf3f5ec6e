"""Reports about names of others: text in every chart, table and page, whatever characters they have."""

from __future__ import annotations

import base64
import csv
import io
import re
import warnings
from pathlib import Path

import pytest

from data_registry.core.visible import visible
from pipelines import drawing
from pipelines.commands import report
from pipelines.configs.report import ReportConfig
from pipelines.core.escaping import markdown_text
from pipelines.merging.layer_records import LayerRecord
from pipelines.merging.plots import draw_rho
from pipelines.reporting.contents import make_report, read_report
from pipelines.reporting.figures import role_of
from pipelines.training.plots import draw_plots
from tests.evaluation.test_results import metric
from tests.reporting.report_inputs import shares, store, suite

FORMULA = "a$\\frac$b"
NAMES = [
    FORMULA,
    "_cost $5 to $6\nnext",
    "=SUM(A1)|<script>x</script>",
    "\x1b]0;t\x07\u202e" + "long name " * 60,
    "\u6f22\u5b57 \u05e9\u05dc\u05d5\u05dd",
]


def legend_texts(figure: object) -> list[str]:
    from matplotlib.text import Text

    return [found.get_text() for found in figure.findobj(Text)]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on runs of these names, over suites and figures that have one of them too."""
    root = tmp_path_factory.mktemp("names")
    for number, name in enumerate(NAMES):
        store(
            root / "r" / str(number), name,
            suite(f"house/{FORMULA}", {"harmful_compliance": shares(9 - number, 20)}, lower=["harmful_compliance"]),
            suite("capability/__x__", {NAMES[2]: shares(9 + number, 20)}),
        )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = report.run(
            ReportConfig(results=[str(root / "r")], start=str(root / "r" / "0"), title=NAMES[1], out=root / "out",
                         bootstrap=100)
        )  # fmt: skip
    return made.path


def test_tables_hold_the_names_as_text(folder: Path) -> None:
    markdown = (folder / "table.md").read_text()
    for name in NAMES:
        assert f"| {markdown_text(name)} |" in markdown
    assert "<script>" not in markdown.replace("\\<script\\>", "")
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in markdown.split("\n\n")[1].splitlines()}
    assert counts == {4}
    rows = list(csv.reader(io.StringIO((folder / "table.csv").read_text())))
    assert [row[0] for row in rows[1:]] == [visible(f"'{name}" if name.startswith("=") else name) for name in NAMES]
    assert float(rows[1][1]) == 9 / 20


def test_nothing_in_the_report_acts_or_hides(folder: Path) -> None:
    for file in ("table.md", "table.csv", "comparisons.csv", "report.html"):
        text = (folder / file).read_text()
        assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text) is None, file
    page = (folder / "report.html").read_text()
    # The block of answers and the page's own script, and no other.
    assert page.count("<script") == page.count("</script") == 2
    assert "<script>x" not in page
    assert "\\x1b]0;t\\x07\\u202elong name" in page


def test_charts_draw_names_letter_by_letter(folder: Path) -> None:
    with drawing.style():
        figure = drawing.new_figure(9, 6)
        axes = figure.add_subplot()
        for name in NAMES:
            axes.plot([0, 1], label=drawing.label(name))
        axes.set_title(FORMULA)
        axes.legend()
    drawing.to_svg(figure)
    texts = legend_texts(figure)
    assert FORMULA in texts
    assert " _cost $5 to $6\\nnext" in texts
    assert max(map(len, texts)) == 120
    # Both charts of the report exist, and the page has them.
    page = (folder / "report.html").read_text()
    pictures = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page)
    assert [base64.b64decode(found)[:5] for found in pictures] == [b"<?xml"] * 2


def test_plots_of_training_and_of_a_merge_draw_them_too(tmp_path: Path) -> None:
    metrics = [
        {"step": n, "loss": 1.0, f"projection/conflict/{FORMULA}": 0.1, "projection/leak/_x": 0.1} for n in (1, 2)
    ]
    drawn = draw_plots(tmp_path, metrics, [(1, FORMULA, 0.5), (1, "_\x1b", 0.5)])
    assert [path.name for path in drawn] == ["loss.png", "projection.png", "layers.png"]
    record = LayerRecord.__new__(LayerRecord)
    for field, value in {"rho": 0.5, "depth": 0, "module_type": FORMULA, "action": "repaired"}.items():
        object.__setattr__(record, field, value)
    assert draw_rho(tmp_path / "rho.png", [record], [0.4]) is not None


ROLES = {
    ("house/attacks", "harmful_compliance"): "safety",
    ("house/attacks", "over_refusal"): "over-refusal",
    ("capability/x", "harmful_compliance"): "safety",
    ("reference-loss", "over_refusal"): "over-refusal",
    ("preference/x", "harmful_compliance"): "safety",
    ("safety/xstest", "harmful_compliance"): "safety",
    ("testbed", "safe"): "safety",
    ("testbed", "over_refusal"): "over-refusal",
    ("testbed", "general"): "capability",
    ("house", "acc"): "capability",
}


@pytest.mark.parametrize(("name", "figure"), ROLES)
def test_a_figure_counts_as_what_it_measures(name: str, figure: str) -> None:
    assert role_of(name, metric(figure)) == ROLES[name, figure]


def test_harmful_compliance_of_a_suite_of_ones_own_is_in_no_gain(tmp_path: Path) -> None:
    for run, harmful, right in (("base", 18, 10), ("ours", 2, 12)):
        store(
            tmp_path / run, run,
            suite("house/attacks", {"harmful_compliance": shares(harmful, 20)}, lower=["harmful_compliance"]),
            suite("capability/maths", {"acc": shares(right, 20)}),
        )  # fmt: skip
    config = ReportConfig(results=[str(tmp_path)], start="base", out=tmp_path / "out", bootstrap=100)
    found = make_report(config, *read_report(config))
    assert [figure.key for figure in found.benchmarks] == ["capability/maths:acc"]
    assert found.gains[0].value == pytest.approx(100 * (12 - 10) / 10)
    assert found.tradeoff is not None
    assert [point.safety.value for point in found.tradeoff.points] == pytest.approx([10.0, 90.0])
