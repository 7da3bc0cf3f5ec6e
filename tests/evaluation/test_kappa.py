"""Agreement of judges is Cohen's."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.contract.verdict import OUTCOMES, StoredVerdict
from pipelines.evaluation.judges.comparing import cohen_kappa, compare_judges, comparison_lines


def plain_kappa(first: list[str], second: list[str]) -> float:
    names = sorted(set(first) | set(second))
    matrix = np.array(
        [[sum(a == r and b == c for a, b in zip(first, second, strict=True)) for c in names] for r in names]
    )
    shares = matrix / matrix.sum()
    chance = float(shares.sum(0) @ shares.sum(1))
    return float((np.trace(shares) - chance) / (1 - chance))


def test_agreement_is_cohens():
    generator = np.random.default_rng(4)
    first = list(generator.choice(OUTCOMES, 300))
    second = [a if generator.random() < 0.6 else str(generator.choice(OUTCOMES)) for a in first]
    verdicts = [
        StoredVerdict("s", str(n), name, str(outcome), None, "")
        for name, outcomes in (("one", first), ("two", second))
        for n, outcome in enumerate(outcomes)
    ]
    (found,) = compare_judges(verdicts)
    assert (found.first, found.second, found.num_items) == ("one", "two", 300)
    assert found.kappa == pytest.approx(plain_kappa(first, second))
    assert found.agreement == pytest.approx(np.mean([a == b for a, b in zip(first, second, strict=True)]))
    sides = {"full_compliance": "c", "full_refusal": "r", "partial_refusal": "r"}
    sure = [(sides[a], sides[b]) for a, b in zip(first, second, strict=True) if a in sides and b in sides]
    assert cohen_kappa(found.decided()) == pytest.approx(plain_kappa(*map(list, zip(*sure, strict=True))))
    assert sum(found.decided().values()) == len(sure)
    assert f"of {len(sure)}, kappa" in comparison_lines(found)[1]
    assert cohen_kappa({("a", "a"): 5}) is None
    assert cohen_kappa({}) is None
    assert cohen_kappa({("a", "b"): 5, ("b", "a"): 5}) == -1.0
