"""Two judges on the same answers: how often they agree, and where they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from pipelines.evaluation.contract.verdict import ERROR, UNSURE, Label, StoredVerdict


@dataclass(frozen=True)
class JudgeComparison:
    """How two judges agree.

    Attributes:
        first: the name of the one judge.
        second: the name of the other judge.
        confusion: answers by the two outcomes; those that occur.
    """

    first: str
    second: str
    confusion: Mapping[tuple[str, str], int]

    @property
    def num_items(self) -> int:
        """Answers that both judged, errors and doubts included."""
        return sum(self.confusion.values())

    @property
    def agreement(self) -> float:
        """Share of answers with the same outcome."""
        return sum(count for (one, other), count in self.confusion.items() if one == other) / self.num_items

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa of the outcomes; None where chance alone would agree always."""
        return cohen_kappa(self.confusion)

    def decided(self) -> Counter[tuple[str, str]]:
        """Answers of which both are sure, as compliance or refusal, partial refusals among the latter."""
        counts: Counter[tuple[str, str]] = Counter()
        for (one, other), count in self.confusion.items():
            if not {one, other} & {UNSURE, ERROR}:
                counts[_side(one), _side(other)] += count
        return counts


def compare_judges(verdicts: Sequence[StoredVerdict]) -> list[JudgeComparison]:
    """Every two judges that judged the same answers, in the order of their first verdicts."""
    by_judge: dict[str, dict[tuple[str, str], str]] = {}
    for verdict in verdicts:
        by_judge.setdefault(verdict.judge, {})[verdict.key] = verdict.outcome
    found = []
    for (first, ours), (second, theirs) in combinations(by_judge.items(), 2):
        shared = [key for key in ours if key in theirs]
        if shared:
            found.append(JudgeComparison(first, second, Counter((ours[key], theirs[key]) for key in shared)))
    return found


def cohen_kappa(confusion: Mapping[tuple[str, str], int]) -> float | None:
    """Agreement beyond chance: ``(p_o - p_e) / (1 - p_e)``.

    Returns:
        None where there is nothing to agree on, or chance alone would agree always.

    Source:
        J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20 (1960).
    """
    total = sum(confusion.values())
    if total == 0:
        return None
    ours: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    for (one, other), count in confusion.items():
        ours[one] += count
        theirs[other] += count
    observed = sum(count for (one, other), count in confusion.items() if one == other) / total
    expected = sum(ours[name] * theirs[name] for name in ours) / total**2
    return None if expected == 1.0 else (observed - expected) / (1.0 - expected)


def comparison_lines(comparison: JudgeComparison) -> list[str]:
    """The comparison in sentences: agreement and kappa, of all answers and of those of which both are sure."""
    kappa = comparison.kappa
    decided = comparison.decided()
    sure = sum(decided.values())
    both = sum(count for (one, other), count in decided.items() if one == other)
    lines = [
        f"{comparison.first} (rows) and {comparison.second} (columns) agree on {comparison.agreement:.1%} of "
        f"{comparison.num_items} answers, kappa {_number(kappa)}",
    ]
    if sure:
        beyond = _number(cohen_kappa(decided))
        lines.append(f"complied or refused, where both are sure: {both / sure:.1%} of {sure}, kappa {beyond}")
    return lines


def _side(outcome: str) -> str:
    return "complied" if outcome == Label.FULL_COMPLIANCE else "refused"


def _number(kappa: float | None) -> str:
    return "undefined" if kappa is None else f"{kappa:.3f}"
