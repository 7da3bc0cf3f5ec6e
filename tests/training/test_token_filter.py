"""The filter of rejected tokens against brute force, one answer at a time, and against the published rule."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from pipelines.training.token_filter import least_likely_tokens

SHARES = [0.01, 0.1, 0.25, 0.3, 0.5, 0.9, 0.999]


def batch(rng: random.Random) -> tuple[Tensor, Tensor, list[list[float]]]:
    """Ratios [B, L] with anything outside the answers, where these lie, and the answers' ratios alone."""
    answers = [[rng.choice([0.0, -0.5, 0.25, rng.gauss(0, 1)]) for _ in range(rng.randint(1, 12))] for _ in range(5)]
    starts = [rng.randint(0, 4) for _ in answers]
    width = max(start + len(answer) for start, answer in zip(starts, answers, strict=True)) + rng.randint(0, 5)
    ratios, inside = torch.full((5, width), -99.0), torch.zeros(5, width, dtype=torch.bool)
    for row, (start, answer) in enumerate(zip(starts, answers, strict=True)):
        ratios[row, start : start + len(answer)] = torch.tensor(answer)
        inside[row, start : start + len(answer)] = True
    return ratios, inside, [torch.tensor(answer).tolist() for answer in answers]


@pytest.mark.parametrize("seed", range(40))
def test_is_brute_force_over_each_answer_whatever_the_padding(seed: int) -> None:
    rng = random.Random(seed)
    ratios, inside, answers = batch(rng)
    for share in SHARES:
        kept = least_likely_tokens(ratios, inside, share)
        assert not bool((kept & ~inside).any())
        for row, answer in enumerate(answers):
            k = max(1, round(share * len(answer)))
            wanted = [value <= sorted(answer)[k - 1] for value in answer]
            assert kept[row][inside[row]].tolist() == wanted
    # Ties are all in: where nothing has moved, all tokens count.
    assert torch.equal(least_likely_tokens(torch.zeros_like(ratios), inside, 0.1), inside)


def published(ratios: list[float], inside: list[bool], share: float) -> list[bool]:
    """What the published code keeps of one row, written anew: scores of all positions, of which the top k count."""
    scores = [-ratio if within and ratio != 0 else -1e10 for ratio, within in zip(ratios, inside, strict=True)]
    least = sorted(scores, reverse=True)[int(share * len(scores)) - 1]
    return [score >= least and within for score, within in zip(scores, inside, strict=True)]


@pytest.mark.parametrize("seed", range(40))
def test_the_published_rule_depends_on_the_padding(seed: int) -> None:
    ratios, inside, _ = batch(random.Random(seed))
    for share in SHARES:
        if int(share * ratios.shape[1]) < 1:
            continue  # The published code stops with an error.
        kept = least_likely_tokens(ratios, inside, share, padded_width=True)
        rows = zip(ratios.tolist(), inside.tolist(), strict=True)
        assert kept.tolist() == [published(row, within, share) for row, within in rows]
    wider = [torch.nn.functional.pad(each, (0, 30)) for each in (ratios, inside)]
    more = least_likely_tokens(*wider, 0.3, padded_width=True)[:, : ratios.shape[1]]
    assert int(more.sum()) > int(least_likely_tokens(ratios, inside, 0.3, padded_width=True).sum())
    own = least_likely_tokens(*wider, 0.3)[:, : ratios.shape[1]]
    assert torch.equal(own, least_likely_tokens(ratios, inside, 0.3))
