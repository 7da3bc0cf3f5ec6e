"""Tables and the chart: what they say, and what they refuse to say."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from data_registry.core.errors import InputError
from pipelines import drawing
from pipelines.evaluation.contract.results import Results
from pipelines.reporting.chart import Estimate, Point, draw_tradeoff
from pipelines.reporting.table import format_metric, tabulate
from tests.evaluation.test_results import metric, results


def loss(value: float, **changes):
    return metric("loss", value, unit="nats", higher_is_better=False, **changes)


@pytest.fixture
def table():
    start = results("start", metrics=[metric("safe", 0.125), metric("over_refusal", 0.1, higher_is_better=False)])
    naive = results("naive|sft", metrics=[metric("safe", 0.9)])
    return tabulate([start, naive])


def test_a_table_has_a_row_for_each_run_and_a_column_for_each_figure(table):
    assert table.to_plain().splitlines() == [
        "run                  safe % ↑  over-refusal % ↓",
        "---------  ------------------  ----------------",
        "start        12.5 [2.5, 22.5]  10.0 [0.0, 20.0]",
        "naive|sft  90.0 [80.0, 100.0]                 -",
    ]


def test_markdown_escapes_what_would_break_the_table(table):
    lines = table.to_markdown().splitlines()
    assert lines[0] == "| run | safe % ↑ | over-refusal % ↓ |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[3] == "| naive\\|sft | 90.0 [80.0, 100.0] | - |"


def test_csv_keeps_the_precision_and_the_number_of_items(table):
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert rows[0]["testbed:safe:value"] == "0.125"
    assert rows[0]["testbed:safe:num_items"] == "120"
    assert rows[1]["testbed:over_refusal:value"] == ""


def test_the_console_shows_the_same_texts(table):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table.to_rich())
    shown = console.export_text()
    assert "90.0 [80.0, 100.0]" in shown
    assert "over-refusal % ↓" in shown


def test_details_are_shown_where_asked_for():
    both = [results(metrics=[metric(), metric("add", 0.7, headline=False)])]
    assert [column.metric for column in tabulate(both).columns] == ["safe"]
    assert [column.metric for column in tabulate(both, details=True).columns] == ["safe", "add"]


def test_data_sets_of_one_suite_are_told_apart():
    gsm, halueval = (results(suite=f"reference-loss/{name}", metrics=[loss(1.5)]) for name in ("gsm8k", "halueval"))
    merged = Results(**{**gsm.model_dump(), "suites": [*gsm.suites, *halueval.suites]})
    assert [c.heading for c in tabulate([merged]).columns] == ["gsm8k loss nats ↓", "halueval loss nats ↓"]


def test_figures_are_written_in_their_units():
    assert format_metric(metric(value=0.9543, low=0.9, high=1.0)) == "95.4 [90.0, 100.0]"
    assert format_metric(loss(1.23456, low=1.2, high=1.3)) == "1.235 [1.200, 1.300]"
    assert format_metric(loss(1.23456, low=None, high=None, interval=None)) == "1.235"
    assert format_metric(None) == "-"


def test_unlike_results_make_no_table():
    with pytest.raises(InputError, match="cannot be compared"):
        tabulate([results("a"), results("b", shots=5)])


# --- The chart ---------------------------------------------------------------------------------------------------

POINTS = [
    Point("starting model", Estimate(97, 96, 98), Estimate(0, 0, 3), is_start=True),
    Point("naive", Estimate(80, 77, 83), Estimate(98, 94, 99), "over-refusal 58 %"),
    Point("gradient", Estimate(81, 78, 84), Estimate(98, 94, 99)),
    Point("update", Estimate(94, 92, 96), Estimate(95, 90, 98)),
]


def draw(points=POINTS):
    return draw_tradeoff(points, capability_label="ability", safety_label="safety", caption="bars")


def labels(figure):
    (legend,) = figure.legends
    return {text.get_text(): text for text in legend.get_texts()}


def test_every_run_has_its_own_marker_at_its_own_place():
    figure = draw()
    bars = figure.axes[0].containers
    places = [(bar.lines[0].get_xdata()[0], bar.lines[0].get_ydata()[0]) for bar in bars]
    assert sorted(places) == sorted((point.capability.value, point.safety.value) for point in POINTS)
    assert len({bar.lines[0].get_marker() for bar in bars}) == len(POINTS)
    hollow = [bar for bar in bars if bar.lines[0].get_markerfacecolor() == "white"]
    assert [bar.lines[0].get_xdata()[0] for bar in hollow] == [97]


def test_bars_end_where_the_intervals_do():
    bar = next(bar for bar in draw().axes[0].containers if bar.lines[0].get_xdata()[0] == 80)
    ends = [segment for lines in bar.lines[2] for segment in lines.get_segments()]
    np.testing.assert_allclose(ends[0], [[77, 98], [83, 98]])
    np.testing.assert_allclose(ends[1], [[80, 94], [80, 99]])


LONG = "a run of which the name says everything that was ever done to it, one thing after the other"


@pytest.mark.parametrize("more", [[], [Point(LONG, Estimate(90, 88, 92), Estimate(97, 93, 99), "over-refusal 4 %")]])
def test_labels_cover_neither_marks_nor_each_other_and_stay_in_the_picture(more):
    figure = draw([*POINTS, *more])
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in labels(figure).values()]
    shown = [" ".join(text.splitlines()) for text in labels(figure)]
    notes = {"naive": "naive, over-refusal 58 %", LONG: f"{LONG} over-refusal 4 %"}
    assert shown == [*(notes.get(point.label, point.label) for point in [*POINTS, *more]), "Pareto front"]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert not box.overlaps(figure.axes[0].get_window_extent(renderer))
        assert figure.bbox.contains(box.x0, box.y0)
        assert figure.bbox.contains(box.x1, box.y1)


def test_the_legend_shows_the_marker_of_each_run():
    figure = draw()
    (legend,) = figure.legends
    shown = [handle.get_marker() for handle in legend.legend_handles]
    assert shown == [*(bar.lines[0].get_marker() for bar in figure.axes[0].containers), "None"]


def test_files_are_a_picture_and_a_drawing_and_repeat_bit_by_bit(tmp_path):
    (tmp_path / "again").mkdir()
    names = ("chart.png", "chart.svg")
    first, again = (
        drawing.save(draw(), *(folder / name for name in names)) for folder in (tmp_path, tmp_path / "again")
    )
    assert [path.name for path in first] == ["chart.png", "chart.svg"]
    with Image.open(first[0]) as picture:
        assert picture.size == tuple(np.round(draw().get_size_inches() * 200))
        assert np.asarray(picture.convert("L")).std() > 10
    assert ElementTree.parse(first[1]).getroot().tag.endswith("svg")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_a_single_run_makes_a_chart():
    assert labels(draw(POINTS[1:2])).keys() == {"naive, over-refusal 58 %"}


@pytest.mark.parametrize("points", [[], [POINTS[0], POINTS[0]]])
def test_no_runs_and_two_starts_are_refused(points):
    with pytest.raises(ValueError, match="at most one start"):
        draw(points)
