"""What stands behind results: training runs and their logs, samples, differences, and paths that name no machine."""

from __future__ import annotations

import json
import random
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_registry.core.manifest import Manifest
from pipelines.commands import report
from pipelines.configs.report import ReportConfig
from pipelines.reporting.background import Background, look_behind
from pipelines.reporting.behind import TrainingRun, read_lines
from pipelines.reporting.contents import make_report, read_report
from pipelines.reporting.curves import Line, Panel, make_groups
from pipelines.reporting.curves_svg import draw_panel, ticks_of
from pipelines.reporting.legend import curve_title
from pipelines.reporting.places import Places
from tests.reporting.report_inputs import shares, store, suite, train

LOG = [{"step": step, "loss": 4.0 / step, "learning_rate": 1e-4, "num_tokens": 9 * step} for step in (1, 2, 3)]


def behind(root: Path, **options: object) -> Background:
    config = ReportConfig(results=[str(root / "r")], out=root / "out", **options)
    return look_behind(make_report(config, *read_report(config)), config)


def results(root: Path, name: str, *inputs: object) -> None:
    store(root / "r" / name, name, suite("capability/maths", {"acc": shares(2, 4)}), inputs=inputs)


def logged(metrics: list[dict[str, float]]) -> TrainingRun:
    manifest = Manifest(kind="run", tool_version="", command=[], config={}, identity="")
    return TrainingRun(Path("run"), manifest, tuple(metrics), 0)


# --- Training runs -----------------------------------------------------------------------------------------------


def test_curves_are_those_of_the_runs_behind_the_results(tmp_path: Path) -> None:
    results(tmp_path, "start")
    first = train(tmp_path / "runs" / "sft", LOG)
    results(tmp_path, "sft", first)
    results(tmp_path, "dpo", train(tmp_path / "runs" / "dpo", LOG, inputs=[first], learning_rate=0.5))
    found = behind(tmp_path)
    (group,) = found.curves
    # The run that both come from is one line, named by the results that it ends in.
    assert group.labels == ("dpo", "sft")
    assert [panel.key for panel in group.panels] == ["loss", "learning_rate"]
    assert group.panels[0].lines[0].points == ((1.0, 4.0), (2.0, 2.0), (3.0, 4.0 / 3))
    assert "No training run stands behind: start." in found.curve_notes


def test_a_run_behind_a_run_that_is_not_measured_is_named_by_its_place(tmp_path: Path) -> None:
    first = train(tmp_path / "runs" / "sft", LOG)
    results(tmp_path, "dpo", train(tmp_path / "runs" / "dpo", LOG, inputs=[first]))
    assert behind(tmp_path).curves[0].labels == ("dpo", "before: runs/sft")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    results(tmp_path, "gone", train(tmp_path / "runs" / "gone", LOG))
    results(tmp_path, "bare", train(tmp_path / "runs" / "bare", LOG))
    shutil.rmtree(tmp_path / "runs" / "gone")
    (tmp_path / "runs" / "bare" / "metrics.jsonl").unlink()
    notes = " ".join(behind(tmp_path).curve_notes)
    assert "gone: …/runs/gone (gone)" in notes or "gone: runs/gone (gone)" in notes
    assert "bare: runs/bare (damaged)" in notes
    assert behind(tmp_path).curves == ()


def test_a_damaged_log_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    lines = [*LOG, '{"step": 4, "lo', "[1]", '{"loss": 1}', '{"step": true, "loss": 2}', {"step": 5, "loss": "x"}]
    results(tmp_path, "sft", train(tmp_path / "runs" / "sft", lines))
    found = behind(tmp_path)
    assert [step for step, _ in found.curves[0].panels[0].lines[0].points] == [1.0, 2.0, 3.0]
    assert "Lines of logs that cannot be read: 4 of sft." in found.curve_notes


def test_many_runs_are_told_apart_in_groups() -> None:
    groups = make_groups([(f"run {n}", logged(LOG)) for n in range(16)])
    assert [len(group.labels) for group in groups] == [7, 7, 2]
    assert [line.style for line in groups[1].panels[0].lines] == list(range(7))


def test_a_long_log_becomes_means_that_keep_the_whole() -> None:
    long = logged([{"step": step, "loss": float(step)} for step in range(1, 1201)])
    ((panel,),) = [group.panels for group in make_groups([("long", long)])]
    points = panel.lines[0].points
    assert len(points) == 120
    assert points[0] == (6.0, 5.5)
    assert sum(value for _, value in points) / 120 == pytest.approx(600.5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.floats(-1e300, 1e300)), min_size=2, max_size=9),
    st.text(max_size=20),
)
def test_any_curve_is_a_drawing_within_its_frame(points: list[tuple[int, float]], label: str) -> None:
    drawn = draw_panel(Panel("loss", (Line(label, 0, tuple((float(x), y) for x, y in points)),)))
    tree = ElementTree.fromstring(drawn)
    (line,) = [node for node in tree.iter() if node.tag == "polyline"]
    places = [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]
    assert len(places) == len(points)
    assert all(40 <= x <= 340 and 0 <= y <= 190 for x, y in places)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e300, 1e300), st.floats(0, 1e300))
def test_ticks_hold_the_values_between_them_and_are_few(low: float, room: float) -> None:
    ticks = ticks_of(low, low + room)
    assert 2 <= len(ticks) <= 8
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= low + room - 1e-6 * step


def test_titles_of_curves_are_plain_words() -> None:
    assert curve_title("anchor/kl") == "KL on anchors"
    assert curve_title("projection/conflict/assist_2") == "Conflict with a reference: assist 2"
    assert curve_title("my/own") == "my/own"


# --- Differences -------------------------------------------------------------------------------------------------


def test_only_options_in_which_runs_differ_are_in_the_table(tmp_path: Path) -> None:
    results(tmp_path, "start")
    for name, rate in (("a", 0.1), ("b", 0.5)):
        results(tmp_path, name, train(tmp_path / "runs" / name, LOG, learning_rate=rate))
    table = behind(tmp_path, start="start").differences
    assert table.headings == ("", "start", "a", "b")
    assert ("training: learning rate", "-", "0.1", "0.5") in table.rows
    assert not any("model" in row[0] for row in table.rows)


def test_many_runs_are_rows_of_it(tmp_path: Path) -> None:
    for number in range(9):
        results(tmp_path, f"r{number}", train(tmp_path / "runs" / str(number), LOG, learning_rate=number / 10))
    table = behind(tmp_path).differences
    assert table.headings == ("run", "training: learning rate")
    assert table.rows[3] == ("r3", "0.3")


# --- Samples -----------------------------------------------------------------------------------------------------


def sample(step: int, prompt: str, answer: str, **more: object) -> str:
    return json.dumps({"step": step, "prompt": prompt, "answer": answer, "finish": "end", "tokens": 3} | more) + "\n"


def test_samples_are_answers_over_steps(tmp_path: Path) -> None:
    text = "".join(sample(step, prompt, f"{prompt} at {step}") for step in (0, 10) for prompt in ("p", "q"))
    text += (
        sample(10, "p", "again", finish="length") + "[]\n" + '{"step": 20, "prompt": "p"\n' + sample(20, "p", "x")[:9]
    )
    results(tmp_path, "sft", train(tmp_path / "runs" / "sft", LOG, samples=text))
    found = behind(tmp_path)
    (book,) = found.samples
    assert (book.title, book.kind, book.columns) == ("sft", "samples", ("step 0", "step 10"))
    assert [[cell.answer for cell in row.cells] for row in book.rows] == [["p at 0", "again"], ["q at 0", "q at 10"]]
    assert book.rows[0].cells[1].note == "cut off at the limit of tokens; 3 tokens"
    assert "3 lines of the samples of sft cannot be read." in found.answer_notes
    assert behind(tmp_path, answers="none").samples == ()


def test_any_bytes_may_be_a_file_of_samples(tmp_path: Path) -> None:
    generator = random.Random(0)
    whole = [sample(1, "p", "a").encode(), b"\n", b"null\n", b"\xff\xfe\n", b'{"step": 1e999, "prompt": "p"}\n',
             b"[" * 3000 + b"\n", b'{"step": "1", "prompt": 2, "answer": null}\n', b"\0\n"]  # fmt: skip
    for _ in range(300):
        text = b"".join(generator.choices(whole, k=5))
        place = generator.randrange(len(text))
        (tmp_path / "f").write_bytes(text[:place] + bytes([generator.randrange(256)]) + text[place + 1 :])
        lines, damaged = read_lines(tmp_path / "f")
        assert all(isinstance(line, dict) for line in lines)
        assert len(lines) + damaged <= 7


# --- Places ------------------------------------------------------------------------------------------------------


def test_paths_are_relative_to_the_work(tmp_path: Path) -> None:
    places = Places([tmp_path / "work" / "results" / "a"], tmp_path / "work" / "report")
    assert places.path(str(tmp_path / "work" / "runs" / "a")) == "runs/a"
    assert places.path("/data/models/hub/Qwen") == "…/hub/Qwen"
    assert places.path("Qwen/Qwen2-0.5B") == "Qwen/Qwen2-0.5B"
    assert places.text(f"was {tmp_path}/work/runs/a, see https://x.org/a/b/c or and/or 1/2") == (
        "was runs/a, see https://x.org/a/b/c or and/or 1/2"
    )
    words = places.words(["ogpsa", "--out", "/srv/me and you/x", f"base={tmp_path}/work/m", "--rate=1/2"])
    assert words == ["ogpsa", "--out", "…/me and you/x", "base=m", "--rate=1/2"]


def test_the_root_is_no_place_of_the_work() -> None:
    assert Places([Path("/data/r/a")], Path("/home/me/report")).path("/data/r/a") == "…/r/a"


def test_no_page_names_the_folders_of_the_machine(tmp_path: Path) -> None:
    first = train(tmp_path / "w" / "runs" / "sft", LOG, model=str(tmp_path / "models" / "base"))
    for name in ("a", "b"):
        results(tmp_path / "w", name, first)
    page = (
        report.run(ReportConfig(results=[str(tmp_path / "w" / "r")], out=tmp_path / "w" / "out")).path / "report.html"
    )
    text = page.read_text()
    assert str(tmp_path) not in text
    assert "runs/sft" in text
