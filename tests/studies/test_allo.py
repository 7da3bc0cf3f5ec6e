"""The study of ALLO: one procedure for all arms, masks that hold, pairs of items, and a page from the results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM

from benchmarks.studies.allo.__main__ import PAGE
from benchmarks.studies.allo.materials import CONFIGS, MaskMaterials
from benchmarks.studies.allo.pairing import paired
from benchmarks.studies.allo.plan import read_plan
from benchmarks.studies.allo.results import collect, keep, read_results
from benchmarks.studies.allo.running import TARGETS, handed_on, measure, wanted
from benchmarks.studies.allo.tables import TABLES
from benchmarks.studies.allo.tokens import area_under_curve, shuffle
from benchmarks.studies.tradeoff import scoring
from benchmarks.studies.tradeoff.cells import fill
from benchmarks.studies.tradeoff.outcomes import Outcome, Point
from benchmarks.studies.tradeoff.plan import Run, stage_runs
from benchmarks.studies.tradeoff.running import saved
from benchmarks.studies.tradeoff.workers import Worker
from data_registry.core.errors import ArtifactError
from data_registry.testbed import MODEL_DIR
from data_registry.testbed.suite import OVER_REFUSAL_GROUP, SPLITS, items
from pipelines.commands import build_mask, prepare_data, score_tokens
from pipelines.configs.build_mask import BuildMaskConfig
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.score_tokens import ScoreTokensConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.masks.opening import check_model, open_mask
from pipelines.models.reference import resolve_model

ARMS = ("all", "top 10 %", "random 10 %")


@pytest.fixture
def few_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thirtieth of the items, which is enough to be counted."""
    few = {split: items(split)[::30] for split in SPLITS}
    monkeypatch.setattr(scoring, "_items", lambda world, split: few[split])


@pytest.mark.usefixtures("few_items")
def test_arms_go_through_one_procedure_and_masks_hold(tmp_path: Path) -> None:
    plan = read_plan().model_copy(update={"warm_up": {"sft": {"max-steps": 2, "learning-rate": 1e-3}}})
    worker = Worker(
        tmp_path, lambda run: MaskMaterials(tmp_path, plan, run.world, run.seed, "base"),
        lambda run, materials, bench, scratch: measure(run, plan, materials, bench, scratch),
    )  # fmt: skip
    worker.do("test", [Run("sft", arm, 1e-3, "complete", 0, 0, 10) for arm in ARMS])
    starts, outcomes = (
        [one for one in collect(tmp_path) if (one.run.task == "sft") == trained] for trained in (False, True)
    )
    found = {outcome.run.method: outcome for outcome in outcomes}
    assert set(found) == set(ARMS)
    assert [one.run.task for one in starts] == ["base"]
    for arm, outcome in found.items():
        assert outcome.points[0].step == 10
        assert outcome.points[0].norm > 0
        assert len(outcome.points[0].answers) == len(scoring._items(0, "test"))
        # Half of the way back is half of the change.
        assert all(point.norm == pytest.approx(point.alpha * outcome.points[0].norm, rel=1e-3)
                   for point in outcome.points)  # fmt: skip
        if arm != "all":
            assert outcome.left["frozen_identical"] == 1.0
            total = outcome.left["trained_weights"] + outcome.left["frozen_weights"]
            assert outcome.left["trained_weights"] == int(0.1 * total)
    # All see the same rows, as many of them; the warm-up is on the account of the mask that it chooses.
    assert len({outcome.points[0].tokens for outcome in outcomes}) == 1
    assert found["top 10 %"].setup_tokens > found["random 10 %"].setup_tokens == 0
    keep(tmp_path, tmp_path / "results")
    back = read_results(tmp_path / "results")
    assert {one.run for one in back.outcomes} == {one.run for one in (*outcomes, *starts)}
    assert (
        next(one for one in back.outcomes if one.run.method == "all").points[0].answers
        == found["all"].points[0].answers
    )


def test_every_planned_run_has_options_that_the_commands_take(tmp_path: Path) -> None:
    plan = read_plan()
    runs = [run for stage in plan.stages for run in stage_runs(plan, stage)]
    assert runs
    for run in {(run.task, run.method) for run in runs}:
        options = {**plan.settings, **plan.methods[run[1]].options}
        for phase in plan.tasks[run[0]].phases:
            made = {name: "made" for name in ("mask", "token-weights") if name in options}
            given = {**wanted(phase, options | made), **phase.options, "model": "m", "data": ["d"],
                     "learning-rate": 1e-4, "out": tmp_path}  # fmt: skip
            CONFIGS[phase.train].model_validate({key.replace("-", "_"): value for key, value in given.items()})


def test_the_mask_of_a_chain_fits_the_model_that_a_phase_hands_on(tmp_path: Path) -> None:
    start = str(MODEL_DIR)
    mask = build_mask.run(BuildMaskConfig(model=start, score="random", num_procs=1, out=tmp_path / "mask")).path
    config = TrainNpoConfig(model=start, data=[tmp_path], out=tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(start)
    handed = handed_on(model, MODEL_DIR, tmp_path / "handed", config)
    check_model(open_mask(mask), resolve_model(str(handed)).input_record())
    with pytest.raises(ArtifactError, match="another model"):
        check_model(open_mask(mask), resolve_model(str(saved(model, MODEL_DIR, tmp_path / "bare"))).input_record())


def _outcome(method: str, world: int, seed: int, answers: str) -> Outcome:
    share = answers.count("1") / len(answers)
    point = Point(160, 1.0, 0.0, {"safe": 0.99}, {"over_refusal": share}, 1.0, answers)
    return Outcome(Run("sft", method, 1e-3, "complete", world, seed, 160), 0.0, 0.0, 0.0, 0.0, (point,))


def test_pairs_are_of_items_and_nouns_are_drawn_together() -> None:
    # Two worlds, two seeds. Half of the requests of each noun change, or all those of every other noun.
    nouns = [(OVER_REFUSAL_GROUP, f"noun {number // 4}") for number in range(48)]
    spread_out, together = "0101" * 12, "00001111" * 6
    found = {}
    for name, answers in (("spread out", spread_out), ("together", together)):
        ours = {(world, seed): _outcome("a", world, seed, answers) for world in (0, 1) for seed in (0, 1)}
        theirs = {where: _outcome("b", *where, "0" * 48) for where in ours}
        result = paired(ours, theirs, "over_refusal", 0.985, {0: nouns, 1: nouns})
        assert result is not None
        assert result.over_worlds.mean == pytest.approx(50.0)
        assert (result.over_worlds.num_worlds, result.over_worlds.num_runs) == (2, 4)
        assert result.over_items is not None
        assert result.over_items[0] <= 50.0 <= result.over_items[1]
        found[name] = result.over_items[1] - result.over_items[0]
    assert found["together"] > 10 > found["spread out"]
    # An arm that misses the target is not compared.
    short = {where: Outcome(one.run, 0.0, 0.0, 0.0, 0.0, (Point(160, 1.0, 0.0, {"safe": 0.9}, {"over_refusal": 0.0}),))
             for where, one in theirs.items()}  # fmt: skip
    assert paired(ours, short, "over_refusal", 0.985, {0: nouns, 1: nouns}) is None


def test_targets_of_the_page_are_those_that_runs_are_measured_at() -> None:
    from benchmarks.studies.allo import tables

    assert tables.TARGET in TARGETS
    assert {target for _, procedure, target in tables._PROCEDURES if procedure != "trained"} <= set(TARGETS)


def test_the_page_shows_the_results_that_are_kept() -> None:
    page = PAGE.read_text(encoding="utf-8")
    results = read_results()
    assert fill(page, {name: table(results) for name, table in TABLES.items()}) == page


def test_the_results_hold_what_the_page_says_of_all_masked_runs() -> None:
    methods = read_plan().methods
    masked = {name for name, method in methods.items() if "mask" in method.options}
    left = [one.left for one in read_results().outcomes if one.run.method in masked]
    assert left
    assert all(each["frozen_identical"] == 1.0 for each in left)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    generator = np.random.default_rng(0)
    scores, wrong = generator.integers(0, 5, 40) / 5, generator.random(40) < 0.3
    pairs = [(above > below) + 0.5 * (above == below) for above in scores[wrong] for below in scores[~wrong]]
    assert area_under_curve(scores, wrong) == pytest.approx(np.mean(pairs))
    assert area_under_curve(1 - scores, wrong) == pytest.approx(1 - np.mean(pairs))
    with pytest.raises(ValueError, match="both kinds"):
        area_under_curve(scores, np.ones(40, bool))


def test_random_tokens_are_as_many_as_the_wrong_ones_of_each_answer(tmp_path: Path) -> None:
    rows = [{"prompt": f"sort {number} 3 1 .", "chosen": "1 3 5 .", "rejected": "3 1 5 ."} for number in range(5, 30)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prepare_data.run(PrepareDataConfig(source=str(file), out=tmp_path / "pairs"))
    weights = {}
    for name, write in (("edit", score_tokens.run), ("random", shuffle)):
        config = ScoreTokensConfig(
            model=str(MODEL_DIR), data=tmp_path / "pairs", rule="edit", max_length=64, num_procs=1, out=tmp_path / name
        )
        write(config)
        found = pq.read_table(tmp_path / name / "token-weights.parquet").to_pylist()
        weights[name] = [line["weight"] for line in found]
    assert [sum(line) for line in weights["random"]] == [sum(line) for line in weights["edit"]] == [2.0] * len(rows)
    assert weights["random"] != weights["edit"]
