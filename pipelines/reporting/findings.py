"""What a comparison shows, in words: sentences that follow from figures and intervals, and claim nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.evaluation.contract.answer import AnsweredItem
from pipelines.evaluation.contract.results import Metric, Results
from pipelines.evaluation.statistics.comparison import Difference, paired_difference

SUITE = "testbed"
_RESAMPLES = 2000


@dataclass(frozen=True)
class TestbedRun:
    """One model's results on the testbed and the items behind them."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    results: Results
    answers: Sequence[AnsweredItem]

    def metric(self, name: str) -> Metric:
        """A figure of the testbed; it must be there."""
        found = self.results.metric(SUITE, name)
        if found is None:
            raise ValueError(f"{self.results.run} has no figure '{name}' of the suite {SUITE}")
        return found


def describe_tax(start: TestbedRun, naive: TestbedRun, *, seed: int) -> str:
    """One sentence: what plain safety training did to the model.

    Raises:
        ValueError: the two were not asked the same items.
    """
    ability, refused = (_difference(start, naive, name, seed) for name in ("general", "over_refusal"))
    is_cost = (ability.is_shown and ability.value < 0) or (refused.is_shown and refused.value > 0)
    if ability.is_shown:
        change = f"it {'loses' if ability.value < 0 else 'gains'} {_points(ability, of='of general ability')}"
    else:
        change = f"its general ability shows no change ({_signed(ability)})"
    return (
        f"Trained on refusals alone, the model refuses {_share(naive, 'safe')} of the harmful requests "
        f"(before: {_share(start, 'safe')}), {'but' if is_cost else 'and'} {change} and refuses "
        f"{_share(naive, 'over_refusal')} of the harmless requests that look like them "
        f"(before: {_share(start, 'over_refusal')})."
    )


def describe_gain(naive: TestbedRun, projected: Sequence[TestbedRun], *, seed: int) -> str:
    """One sentence: what projection changed against plain training, for each projected run, the main one first.

    Raises:
        ValueError: the runs were not asked the same items.
    """
    parts = []
    for run in projected:
        ability, refused, safe = (_difference(naive, run, name, seed) for name in ("general", "over_refusal", "safe"))
        safety = f"refuses {_share(run, 'safe')} of the harmful requests"
        if safe.is_shown:
            safety += f" ({_signed(safe)})"
        keeps = "keeps" if ability.value > 0 else "loses"
        kept = f"{keeps} {_points(ability, of='more general ability')}"
        often = "less" if refused.value < 0 else "more"
        refusals = f"refuses harmless requests {_points(refused, of=f'{often} often')}"
        parts.append(
            f"{run.results.run} {safety}, "
            f"{kept if ability.is_shown else f'shows no difference in general ability ({_signed(ability)})'} and "
            f"{refusals if refused.is_shown else f'none in refusals of harmless requests ({_signed(refused)})'}"
        )
    return "Compared with that, " + "; ".join(parts) + "."


def _difference(first: TestbedRun, second: TestbedRun, name: str, seed: int) -> Difference:
    return paired_difference(first.metric(name), SUITE, first.answers, second.answers, resamples=_RESAMPLES, seed=seed)


def _share(measured: TestbedRun, name: str) -> str:
    return f"{measured.metric(name).value * 100:.1f} %"


def _points(difference: Difference, *, of: str) -> str:
    """Percentage points with their interval, without a sign: the words around say the direction."""
    sign = -1.0 if difference.value < 0 else 1.0
    return f"{_percent(abs(difference.value))} points {of}{_interval(difference, sign)}"


def _signed(difference: Difference) -> str:
    return f"{_percent(difference.value, '+')} points{_interval(difference, 1.0)}"


def _interval(difference: Difference, sign: float) -> str:
    if difference.interval is None:
        return ""
    low, high = sorted((difference.interval.low * sign, difference.interval.high * sign))
    return f" [{_percent(low)}, {_percent(high)}]"


def _percent(share: float, sign: str = "") -> str:
    return f"{round(share * 100, 1) + 0.0:{sign}.1f}"  # the sum makes a zero of -0.0
