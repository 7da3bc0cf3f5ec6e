"""The study of the trade-off: training as by the commands, scores as by the suite, choices as they are described."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.studies.tradeoff import figures, outcomes, running, tables
from benchmarks.studies.tradeoff.__main__ import PAGE, TABLE
from benchmarks.studies.tradeoff.cells import fill
from benchmarks.studies.tradeoff.outcomes import Outcome, Point, read_table, write_table
from benchmarks.studies.tradeoff.plan import Run, read_plan, stage_runs
from benchmarks.studies.tradeoff.references import REFERENCES, reference_pools
from benchmarks.studies.tradeoff.scoring import right
from benchmarks.studies.tradeoff.training import train
from data_registry.testbed import MODEL_DIR
from data_registry.testbed.pools import rows
from data_registry.testbed.suite import items
from pipelines.commands import prepare_data, train_sft
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.evaluation.suites import testbed


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL_DIR)


def test_training_gives_the_weights_of_the_command(tmp_path: Path) -> None:
    file = tmp_path / "safety.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows("safety-sft", 0, 24)), encoding="utf-8")
    prepare_data.run(PrepareDataConfig(source=str(file), out=tmp_path / "safety"))
    options = {"model": str(MODEL_DIR), "data": [tmp_path / "safety"], "num_procs": 1, "precision": "fp32",
               "max_steps": 3, "learning_rate": 1e-3, "batch_size": 8, "accumulation": 1, "max_length": 64}  # fmt: skip
    looks: list[tuple[int, float]] = []
    trained = train(
        TrainSftConfig(**options, out=tmp_path / "ours"),
        at=(1, 3), look=lambda model, step, tokens: looks.append((step, tokens)),
    )  # fmt: skip
    train_sft.run(TrainSftConfig(**options, out=tmp_path / "command"))
    saved = load_file(tmp_path / "command" / "model" / "model.safetensors")
    assert all(torch.equal(saved[name], weight) for name, weight in trained.model.named_parameters())
    assert [step for step, _ in looks] == [1, 3]
    # All 24 rows are seen once, and no token of them twice.
    words = sum(len(turn["content"].split()) for row in rows("safety-sft", 0, 24) for turn in row["messages"])
    assert trained.tokens == looks[-1][1] == words + 3 * 24


def test_scores_are_those_of_answers(tokenizer) -> None:
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR)
    torch.manual_seed(0)
    with torch.no_grad():
        # So far off that some answers are right and some are wrong.
        for weight in model.parameters():
            weight.add_(0.15 * weight.std() * torch.randn_like(weight))
    chosen = [item for item in items("test") if item.id.endswith(("0", "5"))]
    expected = testbed.score(chosen, testbed.answer(model, tokenizer, chosen))
    found = right(model, chosen, tokenizer)
    assert found == [bool(score.value) for score in expected]
    assert 0.1 < sum(found) / len(found) < 0.9


def test_every_planned_run_has_options_that_the_commands_take(tmp_path: Path) -> None:
    plan = read_plan()
    for task, kind in (("sft", TrainSftConfig), ("dpo", TrainDpoConfig)):
        for name, method in plan.methods.items():
            if task == "dpo" and method.dpo is None:
                continue
            options = {**plan.settings, **method.options, **((method.dpo or {}) if task == "dpo" else {})}
            given = {key.replace("-", "_"): value for key, value in options.items()}
            kind.model_validate({**given, "model": "m", "data": ["d"], "learning_rate": 1e-4, "out": tmp_path}), name
    names = {run.name for stage in plan.stages for run in stage_runs(plan, stage)}
    runs = {run for stage in plan.stages for run in stage_runs(plan, stage)}
    assert len(names) == len(runs) > 0
    assert {run.references for run in runs} <= set(REFERENCES)


def test_references_have_the_gaps_that_their_names_say() -> None:
    skills = {name: [turn["content"] for rows_ in reference_pools(name, 1, 0).values() for row in rows_
                     for turn in row["messages"] if turn["role"] == "assistant"]
              for name in ("complete", "no howto", "no howto, 12 look-alikes of 1")}  # fmt: skip
    guides = {name: sum(" guide : " in answer for answer in answers) for name, answers in skills.items()}
    assert guides == {"complete": 50, "no howto": 0, "no howto, 12 look-alikes of 1": 12}
    assert len({answer.split()[0] for answer in skills["no howto, 12 look-alikes of 1"] if " guide : " in answer}) == 1


def _outcome(*points: tuple[int, float, float]) -> Outcome:
    run = Run("sft", "KL", 6e-4, "complete", 1, 0, 160)
    made = tuple(
        Point(step, alpha, 10.0 * step, {"safe": safe, "general": 0.9}, {"safe": safe - 0.01, "general": alpha})
        for step, alpha, safe in points
    )
    return Outcome(run, 1700.0, 6.0, 100.0, 1.0, made)


def test_procedures_choose_as_they_are_described() -> None:
    ours = _outcome(
        (80, 1.0, 0.5), (150, 1.0, 0.99), (160, 1.0, 1.0), (160, 0.9, 0.995), (160, 0.8, 0.98), (160, 0.7, 0.99)
    )
    assert ours.chosen("trained", 0.99)[0].step == 160
    assert ours.chosen("stopped", 0.99) == (ours.points[1], True)
    # What lies behind a share that is below the target is not trusted.
    assert ours.chosen("mixed", 0.99) == (ours.points[3], True)
    assert ours.chosen("mixed", 0.97) == (ours.points[5], True)
    short = _outcome((80, 1.0, 0.5), (160, 1.0, 0.9), (160, 0.9, 0.99))
    assert all(short.chosen(name, 0.99) == (short.points[1], False) for name in outcomes.PROCEDURES)
    # The test split is a point lower throughout, and whoever goes by it goes less far back.
    assert ours.chosen("hindsight", 0.98) == (ours.points[3], True)
    assert ours.chosen("hindsight", 0.99) == (ours.points[2], True)


def test_results_come_back_from_the_table(tmp_path: Path) -> None:
    starts = {1: {"validation": {"general": 0.5}, "test": {"general": 0.25, "render": 1.0}}}
    ours = _outcome((160, 1.0, 0.5), (160, 0.9, 0.25))
    write_table([ours], starts, tmp_path / "points.parquet")
    (back,), back_starts = read_table(tmp_path / "points.parquet")
    assert back_starts == starts
    assert (back.run, back.tokens, back.cpu_s, back.setup_tokens, back.setup_s) == (ours.run, 1700.0, 6.0, 100.0, 1.0)
    assert [point.step for point in back.points] == [160, 160]
    assert back.points[1].test == pytest.approx(ours.points[1].test)


def test_spread_is_over_worlds() -> None:
    found = figures.spread({(0, 0): 1.0, (0, 1): 3.0, (1, 0): 4.0})
    # Worlds 2 and 4: mean 3, standard error 1, and Student's t of one degree of freedom.
    assert (found.mean, found.low, found.high, found.num_runs, found.num_worlds) == (3.0, 2.0, 4.0, 3, 2)
    assert found.half == pytest.approx(12.7062, abs=1e-3)


def test_the_page_is_filled_between_its_marks() -> None:
    page = "a\n<!-- table: one -->\n\nold | old\n\n<!-- end -->\nb\n"
    assert fill(page, {"one": "| new |"}) == "a\n<!-- table: one -->\n\n| new |\n\n<!-- end -->\nb\n"


def test_the_page_shows_the_results_that_are_kept() -> None:
    page = PAGE.read_text(encoding="utf-8")
    results = tables.Results(read_plan(), *read_table(TABLE))
    assert fill(page, {name: table(results) for name, table in tables.TABLES.items()}) == page


class _Mixed:
    """A bench on which a share of the way to the trained weights is as safe as it is long."""

    class scorer:  # noqa: N801 - it stands where a scorer does
        safety = staticmethod(lambda model, split: model)
        answers = staticmethod(lambda model, split: [model >= 0.9])
        figures = staticmethod(lambda model, split: {"safe": model})
        figures_of = staticmethod(lambda split, answers: {"safe": float(answers[0])})

    put = staticmethod(lambda weights, alpha: alpha)
    distance = staticmethod(lambda model: 3 * model)


def test_the_share_that_reaches_a_target_is_found_by_halving() -> None:
    way = [{"step": 160, "tokens": 1.0, "alpha": alpha, "validation": {"safe": alpha}, "norm": 3 * alpha}
           for alpha in (1.0, 0.95, 0.9)]  # fmt: skip
    found = running._at_targets(way, _Mixed, {}, (0.93, 0.985))
    alphas = [point["alpha"] for point in found]
    assert alphas == sorted(alphas, reverse=True)
    for target in (0.93, 0.985):
        measured = [point["alpha"] for point in (way[0], *found) if "test" in point and point["alpha"] >= target]
        assert target <= min(measured) < target + 0.05 / 8
    assert all(point["norm"] == pytest.approx(3 * point["alpha"]) for point in found)
    assert {point["answers"] for point in found if "test" in point} == {"1"}
    # Out of reach, nothing is measured.
    assert running._at_targets([{**way[1], "test": {}}, way[2]], _Mixed, {}, (0.985,)) == [way[2]]
