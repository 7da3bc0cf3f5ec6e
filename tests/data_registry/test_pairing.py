"""Pairs of right and wrong answers: the published rule, and what it does not know."""

from __future__ import annotations

import random
from itertools import groupby

import pytest

from data_registry.sources.pairing import QUESTIONS, GradedAnswer, Pair, PairCounts, Pairing


def published(samples: list[tuple[str, str, bool]], most: int, seed: int) -> list[tuple[str, str, str]]:
    """What the release does, written from its description: one generator for all questions, as they first appear.

    Args:
        samples: question, answer, and whether the answer is right.
    """
    drawn = random.Random(seed)
    known: dict[str, dict[str, bool]] = {}
    for question, answer, is_right in samples:
        known.setdefault(question, {}).setdefault(answer, is_right)
    pairs = []
    for question, answers in known.items():
        good = [answer for answer, is_right in answers.items() if is_right]
        bad = [answer for answer, is_right in answers.items() if not is_right]
        both = [(question, chosen, rejected) for chosen in good for rejected in bad]
        pairs += drawn.sample(both, min(most, len(both)))
    return pairs


def ours(samples: list[tuple[str, str, bool]], most: int, seed: int) -> tuple[list[tuple[str, str, str]], PairCounts]:
    pairing = Pairing(most, seed)
    found = []
    for question, group in groupby(enumerate(samples), key=lambda numbered: numbered[1][0]):
        answers = [GradedAnswer(row, text, "right" if is_right else "wrong") for row, (_, text, is_right) in group]
        for pair in pairing.pairs(answers):
            assert pair.chosen is not None
            found.append((question, samples[pair.chosen][1], samples[pair.rejected][1]))
    return found, pairing.counts


def test_pairs_are_those_of_the_published_rule() -> None:
    tried = 0
    for seed in range(150):
        rng = random.Random(1000 + seed)
        samples = []
        for number in range(rng.randint(1, 8)):
            is_right = {text: rng.random() < rng.choice([0, 0.5, 1]) for text in "abcdefgh"}
            texts = rng.choices("abcdefgh", k=rng.randint(1, 12))
            samples += [(f"question {number}", text, is_right[text]) for text in texts]
        most = rng.choice([1, 3, 5, 40])
        found, counts = ours(samples, most, seed)
        assert found == published(samples, most, seed)
        assert sum(getattr(counts, kind) for kind in QUESTIONS) == counts.questions
        assert len(set(found)) == len(found)
        tried += len(found)
    assert tried > 300


def test_another_seed_gives_other_pairs() -> None:
    samples = [("q", text, text < "e") for text in "abcdefgh"]
    assert ours(samples, 5, 42)[0] != ours(samples, 5, 43)[0]
    assert ours(samples, 5, 42)[0] == ours(samples, 5, 42)[0]


def graded(*answers: tuple[str, str] | tuple[str, str, bool]) -> list[GradedAnswer]:
    return [GradedAnswer(row, *answer) for row, answer in enumerate(answers)]


def test_right_answers_that_were_cut_off_are_never_chosen() -> None:
    pairing = Pairing(5, 0)
    pairs = pairing.pairs(graded(("a", "right", True), ("a", "right"), ("b", "wrong", True), ("c", "wrong")))
    assert sorted((pair.chosen, pair.rejected) for pair in pairs) == [(1, 2), (1, 3)]
    assert pairing.pairs(graded(("a", "right", True), ("b", "wrong"))) == []
    counts = pairing.counts
    assert (counts.cut_off, counts.right_cut_off, counts.duplicates) == (3, 2, 0)
    assert (counts.with_pairs, counts.only_wrong) == (1, 1)


def test_answers_that_could_not_be_judged_are_on_neither_side() -> None:
    pairing = Pairing(5, 0)
    assert pairing.pairs(graded(("a", "unsure"), ("b", "wrong"))) == []
    assert pairing.pairs(graded(("a", "unsure"))) == []
    assert (pairing.counts.unsure, pairing.counts.only_wrong, pairing.counts.neither) == (2, 1, 1)


@pytest.mark.parametrize("use_reference", [False, True])
def test_reference_stands_in_for_a_right_answer_only_where_there_is_none(use_reference: bool) -> None:
    pairing = Pairing(5, 0, use_reference)
    wrong = pairing.pairs(graded(("b", "wrong"), ("c", "wrong"), ("b", "wrong"), ("gold ", "wrong")), "gold")
    assert set(wrong) == ({Pair(None, 0), Pair(None, 1)} if use_reference else set())
    assert pairing.pairs(graded(("a", "right"), ("b", "wrong")), "gold") == [Pair(0, 1)]
    assert pairing.pairs(graded(("a", "right")), "gold") == []
    assert pairing.pairs(graded(("a", "wrong")), None) == []
    counts = pairing.counts
    assert (counts.questions, counts.with_pairs, counts.only_right, counts.only_wrong) == (4, 1, 1, 2)
    assert counts.with_reference == use_reference
    assert counts.duplicates == 1
