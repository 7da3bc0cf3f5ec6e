"""``ogpsa merge`` as a command: what it prints, its exit codes, and that what it makes is used by other commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from pipelines.evaluation.contract.results import Metric, Results, SuiteResults, SuiteSettings
from pipelines.evaluation.registry import SUITES
from tests.cli.conftest import TESTBED_MODEL, Cli
from tests.reference.merge_inputs import WEIGHTS, rewrite, save_adapter, save_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    base = save_model(root / "base", 0)
    save_model(root / "unaligned", 1)
    for seed, name in ((2, "task"), (3, "safe")):
        save_adapter(root / name, base, seed, target_modules=["q_proj", "v_proj"])
    return root


def test_a_merge_prints_its_layers_and_can_be_inspected(made: Path, cli: Cli) -> None:
    given = (made / "task", "--safe", made / "safe", "--unaligned", made / "unaligned")
    done = cli("merge", *given, "--cos-threshold", "1", "--weights", "0.7,0.3", "--out", made / "out")
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    row = next(line for line in lines if line[0] == "model.layers.1.self_attn.q_proj")
    assert row[2] == "merged"
    assert row[-4:] == ["4+4", "→", "8", row[-1]]
    assert "merged: " in done.out
    assert "Traceback" not in done.err
    again = cli("merge", *given, "--cos-threshold", "1", "--weights", "0.7,0.3", "--out", made / "out")
    assert again.code == 0
    assert "up to date" in again.out
    inspected = cli("inspect", made / "out")
    assert inspected.code == 0, inspected.err
    assert "unaligned" in inspected.out


def test_a_sweep_prints_a_line_for_each_threshold(made: Path, cli: Cli) -> None:
    given = (made / "task", "--safe", made / "safe", "--unaligned", made / "unaligned")
    done = cli("merge", *given, "--cos-threshold", "-1,1", "--out", made / "sweep")
    assert done.code == 0, done.err
    assert "cos--1: threshold -1, 0 of 6 layers repaired" in done.out
    assert "cos-1: threshold 1, 6 of 6 layers repaired" in done.out


def test_a_dry_run_shows_the_layers_and_writes_nothing(made: Path, cli: Cli) -> None:
    before = set(made.iterdir())
    given = (made / "task", "--safe", made / "safe", "--unaligned", made / "unaligned")
    done = cli("merge", *given, "--cos-threshold", "1", "--out", made / "dry", "--dry-run")
    assert done.code == 0, done.err
    assert "6 of 6 layers below" in done.out
    assert "model.layers.2.self_attn.v_proj" in done.out
    assert set(made.iterdir()) == before


def test_mistakes_end_with_their_exit_codes(made: Path, tmp_path: Path, cli: Cli) -> None:
    nothing = cli("merge", made / "task", "--out", tmp_path / "out")
    assert nothing.code == 2
    assert "--safe is required" in nothing.err
    save_adapter(tmp_path / "bad", made / "base", 4, target_modules=["q_proj", "v_proj"])
    rewrite(tmp_path / "bad" / WEIGHTS, lambda tensors: {key: value * float("nan") for key, value in tensors.items()})
    given = ("--safe", made / "safe", "--unaligned", made / "unaligned", "--out", tmp_path / "out")
    bad = cli("merge", tmp_path / "bad", *given)
    assert bad.code == 2
    assert "NaN" in bad.err
    assert "where:" in bad.err
    assert "fix:" in bad.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    taken = cli("merge", made / "task", *given)
    assert taken.code == 3
    assert (tmp_path / "out" / "mine.txt").read_text() == "precious"


def sweep(made: Path, *more: str | Path) -> tuple[str | Path, ...]:
    ends = (made / "task-model", "--safe", made / "base", "--method", "linear")
    return ("merge", *ends, "--suite", "prompts", "--set", f"evaluation.harmful={made / 'asked.txt'}", *more)


def results_of(*safeties: float) -> list[Results]:
    settings = SuiteSettings(
        version="1", split="all", prompt_hash="p", template_hash="t", decoding="greedy", scoring="judge"
    )
    figures = [
        Metric(
            name="harmful_compliance", value=1 - safe, num_items=9, higher_is_better=False, unit="share", groups=("g",)
        )
        for safe in safeties
    ]  # fmt: skip
    return [
        Results(
            run=f"share {number}",
            model="m",
            model_fingerprint="f",
            suites=(SuiteResults(suite="asked", settings=settings, metrics=(figure,)),),
        )
        for number, figure in enumerate(figures)
    ]


@pytest.mark.parametrize(
    ("safeties", "said", "then"),
    [
        ((0.2, 0.995, 1.0), "Chosen: 0.4, the smallest share from which on all are safe by at least 99 %.", "0.4,0.6"),
        ((1.0, 0.9, 1.0), "That is one of the two models itself: there is nothing to merge.", None),
        ((1.0, 0.9, 0.98), "Nothing is chosen: not even the largest share is safe by 99 %.", None),
    ],
)
def test_a_sweep_of_mixes_says_what_it_would_choose_and_makes_no_model(
    made: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, safeties: tuple[float, ...], said: str, then: str | None
) -> None:
    if not (made / "task-model").exists():
        shutil.copytree(made / "unaligned", made / "task-model")
        (made / "asked.txt").write_text("How?\n")
    monkeypatch.setattr("pipelines.commands.merge.measure_mixes", lambda *given, **named: results_of(*safeties))
    given = sweep(made, "--sweep", "1,0.1,0.4", "--out", "curve")
    done = cli(*given)
    assert done.code == 0, done.err
    assert said in done.out
    assert "asked has no validation side" in done.out
    assert ["0.1", f"{100 * safeties[0]:.1f}"] in [line.split() for line in done.out.splitlines()]
    applied = f"ogpsa merge {made / 'task-model'} --method linear --safe {made / 'base'} --weights {then}"
    assert (applied in done.err) == (then is not None)
    assert sorted(each.name for each in Path("curve").iterdir()) == [
        "curve.md", "curve.parquet", "curve.png", "manifest.json",
    ]  # fmt: skip
    assert "up to date" in cli(*given).out


def test_a_sweep_measures_the_suite_of_the_testbed_on_its_validation_side(cli: Cli) -> None:
    done = cli(
        "merge", TESTBED_MODEL, "--safe", TESTBED_MODEL, "--method", "linear", "--sweep", "0.3", "--suite", "testbed",
        "--set", "evaluation.num-samples=2", "--out", "curve",
    )  # fmt: skip
    assert done.code == 0, done.err
    has_validation = "testbed-validation" in SUITES
    assert ("These are figures of the validation side" in done.out) == has_validation
    splits = {row["split"] for row in parquet.read_table("curve/curve.parquet").to_pylist()}
    assert splits == {"validation" if has_validation else "test"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--sweep", "0,2"), "--sweep takes shares of the fine-tuned model from 0 to 1, or 'tenths'"),
        (("--sweep", "0,half"), "option --sweep"),
        (("--sweep", "0.5,0.5"), "--sweep names a share twice"),
        (("--sweep", "1", "--weights", "0.5,0.5"), "--weights does not go with --sweep"),
        (("--sweep", "1", "--output", "model"), "--output model does not go with --sweep"),
        (("--sweep", "1", "--set", "evaluation.sute=x"), "sute"),
        (("--sweep", "1", "--set", "evaluation.out=x"), "--set evaluation.out: a sweep settles it itself"),
        (("--sweep", "1", "--set", "evaluation.batch-size=0"), "batch-size"),
        (("--safe-at-least", "0.9"), "--safe-at-least needs --sweep"),
    ],
)
def test_mistakes_in_a_sweep_end_before_anything_is_made(cli: Cli, more: tuple[str, ...], message: str) -> None:
    done = cli("merge", "m", "--safe", "s", "--method", "linear", "--suite", "testbed", *more, "--out", "curve")
    assert done.code == 2
    assert message in done.err
    assert list(Path.cwd().iterdir()) == []
