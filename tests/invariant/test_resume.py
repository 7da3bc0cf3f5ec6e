"""A run that was stopped and went on is the run that was never stopped: see ``resume_worker``, one launch each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.ranks import run_ranks
from tests.invariant.asked_runs import PROMPTS

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

EXPECTED = {1: 5, 2: 17}
# Refreshed as far as the rows turn, and not every three steps.
TURNING = ("sft, refreshed as it turns", "sft zero3 bf16, update space")
# On two ranks also: what is no mode.
OTHERS = ("broken on purpose", "stopped in its basis", "stopped in reference log-probs")


@pytest.fixture(scope="module", params=[1, 2], ids=["one-process", "two-ranks"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    findings = run_ranks("tests.invariant.resume_worker", tmp_path_factory.mktemp("resume"), num_procs=request.param)
    assert len(findings) == EXPECTED[request.param] + (len(OTHERS) if request.param > 1 else 0)
    return findings


def test_bit_identical(found: dict[str, Any]) -> None:
    for name, finding in modes(found).items():
        assert finding["differing"] == [], name


def test_it_really_was_stopped_and_said_so(found: dict[str, Any]) -> None:
    for name, finding in modes(found).items():
        assert all(
            line.startswith("75: stopped") and "saved; the same command goes on from there" in line
            for line in finding["said"]
        ), name
        assert 1 <= len(finding["checkpoints"]) <= 2, name
        # The finished run holds no checkpoints.
        assert finding["left"] == [], name


def test_the_log_has_neither_gaps_nor_doubles(found: dict[str, Any]) -> None:
    for name, finding in modes(found).items():
        if "held out" in name:
            continue
        last = int(4 * finding["epochs"])
        # The last line is the summary of the run.
        assert finding["steps logged"] == [*sorted({1, *range(3, last, 3), last}), last], name
        if name in TURNING:
            assert 2 <= finding["refreshes logged"] <= last / 3, name
        else:
            assert finding["refreshes logged"] == (0 if "no basis" in name else 3 if "lora" in name else 2), name


def test_answers_given_while_training_have_neither_gaps_nor_doubles(found: dict[str, Any]) -> None:
    """These runs are compared with runs that are not asked; so that answers leave no trace is tested with the rest."""
    asked = {name: finding for name, finding in modes(found).items() if finding["steps asked"]}
    assert len(asked) == (8 if "broken on purpose" in found else 0)
    for name, finding in asked.items():
        last = finding["steps logged"][-1]
        assert finding["steps asked"] == [step for step in sorted({*range(3, last, 3), last}) for _ in PROMPTS], name


def test_the_best_weights_and_the_early_end_are_those_of_the_run_that_was_not_stopped(found: dict[str, Any]) -> None:
    measured = {name: finding for name, finding in modes(found).items() if "held out" in name}
    assert len(measured) == (2 if "broken on purpose" in found else 0)
    for name, finding in measured.items():
        whole, stopped = finding["held out"]
        assert whole == stopped, name
        # Stopped after two and after three steps: the lowest loss lay before or after that, the early end after.
        assert 3 < whole["stopped_early"] < 4 * finding["epochs"], (name, whole)
        assert whole["model_of_step"] == whole["best_eval_step"] < whole["stopped_early"], (name, whole)


def test_every_engine_with_and_without_lora_is_there(found: dict[str, Any]) -> None:
    if "broken on purpose" in found:
        wanted = {
            f"{method} zero{stage}{kind}" for method in ("sft", "dpo") for stage in (0, 2, 3) for kind in ("", " lora")
        }
        assert wanted <= {name.split(",")[0].removesuffix(" bf16") for name in modes(found)}


def test_what_is_not_put_back_is_noticed(found: dict[str, Any]) -> None:
    if "broken on purpose" not in found:
        pytest.skip("done on two ranks")
    broken = found["broken on purpose"]
    assert "optimizer" in broken["basis rows"]
    assert broken["starting weights"] == ["change"]
    assert "random state" in broken["random state"]


@pytest.mark.parametrize("name", OTHERS[1:])
def test_a_signal_to_one_rank_ends_both_before_training_too(found: dict[str, Any], name: str) -> None:
    if name not in found:
        pytest.skip("done on two ranks")
    finding = found[name]
    assert [text.partition(": nothing half-written is left")[0] for text in finding["said"]] == [
        "75: stopped (another process was asked to)", "75: stopped (SIGTERM)",
    ]  # fmt: skip
    assert finding["left"] == []
    assert finding["same"]


def modes(found: dict[str, Any]) -> dict[str, Any]:
    return {name: finding for name, finding in found.items() if name not in OTHERS}
