"""Reports: gains and tests against formulas written out, unlike settings, and what is refused."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from data_registry.core.errors import ArtifactError, ConfigError, InputError
from pipelines.commands import report
from pipelines.configs.report import ReportConfig
from pipelines.reporting.chart import Estimate, Point, pareto_front
from pipelines.reporting.gain import relative_change
from tests.reporting.report_inputs import shares, store, suite


def safety(refused: int, over: int):
    return suite(
        "safety/xstest", {"safe": shares(refused, 40), "over_refusal": shares(over, 40)}, lower=["over_refusal"]
    )


def capability(name: str, right: int, **settings):
    return suite(f"capability/{name}", {"acc": shares(right, 50)}, **settings)


@pytest.fixture
def three(tmp_path):
    """A starting model and two runs on two capability data sets, with safety."""
    store(tmp_path / "r" / "base", "base", safety(4, 0), capability("maths", 40), capability("facts", 25))
    store(tmp_path / "r" / "naive", "naive", safety(40, 30), capability("maths", 20), capability("facts", 20))
    store(tmp_path / "r" / "ours", "ours", safety(38, 4), capability("maths", 38), capability("facts", 26))
    return tmp_path / "r"


def config(out, *results, **options) -> ReportConfig:
    resamples = {"bootstrap": 200} if "start" in options else {}
    return ReportConfig(results=[str(path) for path in results], out=out, **resamples, **options)


def make(tmp_path, *results, **options):
    return report.run(config(tmp_path / "out", *results, **options)).report


# --- Figures -----------------------------------------------------------------------------------------------------


def test_the_average_gain_is_the_formula(tmp_path, three):
    found = make(tmp_path, three, start="base")
    assert [run.name for run in found.runs] == ["base", "naive", "ours"]
    assert [figure.key for figure in found.benchmarks] == ["capability/maths:acc", "capability/facts:acc"]
    naive, ours = found.gains
    assert naive.value == pytest.approx(100 / 2 * ((0.4 - 0.8) / 0.8 + (0.4 - 0.5) / 0.5))
    assert ours.value == pytest.approx(100 / 2 * ((0.76 - 0.8) / 0.8 + (0.52 - 0.5) / 0.5))
    assert naive.num_figures == ours.num_figures == 2
    assert [change.raw for change in naive.changes] == pytest.approx([-0.4, -0.1])
    assert naive.interval.low < naive.value < naive.interval.high < 0


def test_paired_tests_are_those_of_the_items(tmp_path, three):
    found = {(c.run, c.figure.key): c for c in make(tmp_path, three, start="base").comparisons}
    maths = found["naive", "capability/maths:acc"]
    assert (maths.flips.gained, maths.flips.lost, maths.verdict) == (0, 20, "worse")
    assert maths.flips.p_value == pytest.approx(binomtest(0, 20).pvalue)
    assert found["naive", "safety/xstest:over_refusal"].verdict == "worse"
    assert found["ours", "safety/xstest:safe"].verdict == "better"
    assert found["ours", "capability/facts:acc"].verdict == ""
    with (tmp_path / "out" / "comparisons.csv").open() as stream:
        rows = {(row["run"], f"{row['suite']}:{row['figure']}"): row for row in csv.DictReader(stream)}
    assert rows["naive", "capability/maths:acc"]["lost"] == "20"
    assert float(rows["naive", "capability/maths:acc"]["difference"]) == pytest.approx(-0.4)


def test_less_is_better_turns_the_sign_and_nothing_is_a_share_of_zero():
    assert relative_change(0.4, 0.5, higher_is_better=True) == pytest.approx(-0.2)
    assert relative_change(2.0, 1.6, higher_is_better=False) == pytest.approx(-0.25)
    assert relative_change(0.4, 0.0, higher_is_better=True) is None


def test_a_start_of_zero_is_left_out_and_said(tmp_path, three):
    chosen = ["xstest:over_refusal", "maths"]
    found = make(tmp_path, three, start="base", capability=chosen)
    naive = found.gains[0]
    assert (naive.num_figures, naive.value) == (1, pytest.approx(-50.0))
    text = (tmp_path / "out" / "table.md").read_text()
    assert (
        "over-refusal for naive, xstest over-refusal for ours (the starting model has 0, of which nothing is a share)"
        in text
    )


def test_losses_are_in_no_average_but_the_one_they_are_asked_for(tmp_path):
    for name, value in (("base", 1.0), ("run", 1.5)):
        loss = suite("reference-loss/gsm8k", {"loss": [value - 0.1, value + 0.1]}, lower=["loss"], unit="nats")
        store(tmp_path / "r" / name, name, loss, capability("maths", 40))
    found = make(tmp_path, tmp_path / "r", start="base")
    assert found.gains[0].value == 0.0
    assert found.left_out == {"a loss has no scale in common with shares": ["gsm8k loss"]}
    asked = report.run(config(tmp_path / "o2", tmp_path / "r", start="base", capability=["gsm8k", "maths"])).report
    assert asked.gains[0].value == pytest.approx(100 / 2 * (-0.5 + 0.0))


def test_a_figure_that_a_run_lacks_lowers_n(tmp_path, three):
    store(tmp_path / "r" / "half", "half", capability("maths", 40))
    found = make(tmp_path, three, start="base")
    half = next(gain for gain in found.gains if gain.run == "half")
    assert (half.num_figures, half.value) == (1, 0.0)
    assert found.left_out["not measured"] == ["facts acc for half"]
    assert "half: xstest safe, facts acc not measured" in found.tradeoff.left_out


# --- The chart ---------------------------------------------------------------------------------------------------


def test_the_chart_shows_means_turned_towards_safety(tmp_path, three):
    found = make(tmp_path, three, start="base", safety=["safe", "over_refusal"]).tradeoff
    ours = next(point for point in found.points if point.label == "ours")
    assert ours.capability.value == pytest.approx(100 * (0.76 + 0.52) / 2)
    assert ours.safety.value == pytest.approx(100 * (0.95 + (1 - 0.1)) / 2)
    assert ours.safety.low < ours.safety.value < ours.safety.high
    assert [point.label for point in found.points if point.is_start] == ["base"]


def test_the_front_holds_what_nothing_beats():
    def point(label, x, y):
        return Point(label, Estimate(x, x, x), Estimate(y, y, y))

    points = [
        point("a", 1, 9),
        point("b", 5, 5),
        point("c", 4, 5),
        point("d", 9, 1),
        point("e", 1, 9),
        point("f", 0, 9),
    ]
    assert [found.label for found in pareto_front(points)] == ["a", "e", "b", "d"]


def test_pictures_are_drawn(tmp_path, three):
    make(tmp_path, three, start="base")
    for name in ("tradeoff", "figures"):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            grey = np.asarray(picture.convert("L"))
        assert min(grey.shape) >= 500
        assert grey.std() > 10
        assert (tmp_path / "out" / f"{name}.svg").read_text().startswith("<?xml")


# --- Unlike settings ---------------------------------------------------------------------------------------------


@pytest.fixture
def unlike(tmp_path):
    store(tmp_path / "r" / "a", "a", capability("maths", 40), capability("facts", 30))
    store(tmp_path / "r" / "b", "b", capability("maths", 30, shots=5), capability("facts", 25))
    return tmp_path / "r"


def test_unlike_settings_are_refused_by_name(tmp_path, unlike):
    with pytest.raises(InputError) as caught:
        make(tmp_path, unlike, start="a")
    assert "capability/maths: shots is 0 for a and 5 for b" in str(caught.value)
    assert "facts" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_apart_they_are_shown_and_never_averaged(tmp_path, unlike):
    found = make(tmp_path, unlike, start="a", unlike="apart")
    columns = {figure.heading: [cell and cell.value for cell in figure.cells] for figure in found.figures}
    assert columns == {"maths acc": [0.8, None], "maths acc (shots 5)": [None, 0.6], "facts acc": [0.6, 0.5]}
    assert (found.gains[0].num_figures, found.gains[0].value) == (1, pytest.approx(100 * (0.5 - 0.6) / 0.6))
    assert [figure.heading for figure in found.benchmarks] == ["maths acc", "facts acc"]
    assert {comparison.figure.title for comparison in found.comparisons} == {"facts acc"}
    text = (tmp_path / "out" / "table.md").read_text()
    assert "shots is 0 for a and 5 for b" in text
    with pytest.raises(ConfigError, match="there is no figure 'maths acc \\(shots 5\\)'"):
        report.run(config(tmp_path / "o2", unlike, start="a", unlike="apart", capability=["maths acc (shots 5)"]))


# --- Runs --------------------------------------------------------------------------------------------------------


def test_results_of_one_model_share_a_row(tmp_path):
    one = store(tmp_path / "one", "m", safety(4, 0), fingerprint="w")
    two = store(tmp_path / "two", "m", capability("maths", 40), fingerprint="w")
    found = make(tmp_path, one, two)
    assert [run.name for run in found.runs] == ["m"]
    assert len(found.figures) == 3
    assert found.gains == found.comparisons == ()


def test_other_models_of_the_same_name_are_told_apart(tmp_path):
    one, two = (store(tmp_path / name, "m", capability("maths", 40), fingerprint=name) for name in "xy")
    assert [run.name for run in make(tmp_path, one, two, start="m (x)").runs] == ["m (x)", "m (y)"]
    with pytest.raises(InputError, match="two models are called 'q'"):
        report.run(config(tmp_path / "o2", f"q={one}", f"q={two}"))


def test_names_can_be_given_and_the_start_named_by_its_path(tmp_path, three):
    found = make(tmp_path, f"the start={three / 'base'}", three / "ours", start=str(three / "base"))
    assert [run.name for run in found.runs] == ["the start", "ours"]
    assert found.start is found.runs[0]


def test_the_same_report_is_up_to_date_and_other_names_are_not_the_same(tmp_path, three):
    first = report.run(config(tmp_path / "out", three, start="base"))
    again = report.run(config(tmp_path / "out", three, start="base"))
    assert (first.up_to_date, again.up_to_date) == (False, True)
    assert [record.role for record in first.manifest.inputs] == [f"results of {run.name}" for run in first.report.runs]
    assert first.manifest.summary["gain_percent"]["naive"] == pytest.approx(-35.0)
    renamed = [three / "base", f"other={three / 'naive'}", three / "ours"]
    with pytest.raises(ArtifactError, match="made with other settings"):
        report.run(config(tmp_path / "out", *renamed, start="base"))


def test_a_dry_run_says_what_would_be_in_it(tmp_path, three):
    lines = dict(report.plan(config(tmp_path / "out", three, start="base")))
    assert lines["run 1"] == f"base: safety/xstest, capability/maths, capability/facts from {three / 'base'}"
    assert lines["gain over"] == "maths acc, facts acc"
    assert not (tmp_path / "out").exists()


# --- What is refused ---------------------------------------------------------------------------------------------


def test_a_start_that_is_none_of_the_runs(tmp_path, three):
    with pytest.raises(ConfigError, match=r"is none of the runs .did you mean 'base'") as caught:
        make(tmp_path, three, start="bas")
    assert "one of: base, naive, ours" in str(caught.value)


def test_figures_that_do_not_exist_or_are_several(tmp_path, three):
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, three, start="base", capability=["acc", "math"])
    assert "--capability acc may be capability/maths:acc or capability/facts:acc" in str(caught.value)
    assert "there is no figure 'math'" in str(caught.value)


def test_no_results_there(tmp_path, three):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no results"):
        make(tmp_path, tmp_path / "empty")
    with pytest.raises(InputError, match=r"there are no results at .*did you mean 'naive'"):
        make(tmp_path, three / "nave")


def test_a_file_that_was_changed_is_refused(tmp_path, three):
    (three / "ours" / "results.json").write_text("{}")
    with pytest.raises(ArtifactError, match="does not verify"):
        make(tmp_path, three)


def test_items_of_other_questions_are_refused(tmp_path, three):
    found, items = capability("maths", 40)
    other = [item.__class__(**{**vars(item), "id": "x" + item.id}) for item in items]
    store(tmp_path / "r" / "odd", "odd", (found, other))
    with pytest.raises(ArtifactError, match="stored items of 'base' and 'odd' are not the same"):
        make(tmp_path, three, start="base")


def test_a_figure_that_items_do_not_explain_is_compared_without_them(tmp_path):
    for name, right in (("base", 40), ("run", 30)):
        found, items = capability("maths", right)
        metric = found.metrics[0].model_copy(update={"value": 0.9 if name == "run" else 0.8, "high": 1.0})
        store(tmp_path / "r" / name, name, (found.model_copy(update={"metrics": (metric,)}), items))
    found = make(tmp_path, tmp_path / "r", start="base")
    assert found.comparisons[0].difference is None
    assert found.comparisons[0].raw == pytest.approx(0.1)
    assert found.gains[0].interval is None
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["summary"]["gain_percent"]["run"] == 12.5
