"""The edit rule: against a recursive distance, and against difflib where the best alignment is the only one."""

from __future__ import annotations

import difflib
from functools import cache
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.token_weights.alignment import edited

TOKENS = st.lists(st.integers(0, 3), max_size=7).map(tuple)


@cache
def distance(here: tuple[int, ...], there: tuple[int, ...]) -> int:
    """Levenshtein's distance by its definition."""
    if not here or not there:
        return len(here) + len(there)
    return min(
        distance(here[:-1], there[:-1]) + (here[-1] != there[-1]),
        distance(here[:-1], there) + 1,
        distance(here, there[:-1]) + 1,
    )


def flags_by_definition(here: tuple[int, ...], there: tuple[int, ...]) -> list[bool]:
    """The rule written as a recursion: the diagonal first, then a deletion, then an insertion."""
    if not here or not there:
        return [True] * len(here)
    least, step = distance(here, there), here[-1] != there[-1]
    if distance(here[:-1], there[:-1]) + step == least:
        return [*flags_by_definition(here[:-1], there[:-1]), step]
    if distance(here[:-1], there) + 1 == least:
        return [*flags_by_definition(here[:-1], there), True]
    return flags_by_definition(here, there[:-1])


@given(TOKENS, TOKENS)
@settings(max_examples=150, deadline=None)
def test_flags_are_those_of_the_recursion(here: tuple[int, ...], there: tuple[int, ...]) -> None:
    assert edited(here, there) == flags_by_definition(here, there)


@given(TOKENS, TOKENS)
@settings(max_examples=100, deadline=None)
def test_what_is_kept_stands_in_both_in_order(here: tuple[int, ...], there: tuple[int, ...]) -> None:
    kept = [token for token, flag in zip(here, edited(here, there), strict=True) if not flag]
    rest = iter(there)
    assert all(token in rest for token in kept)


def test_where_all_tokens_differ_difflib_finds_the_same() -> None:
    """With distinct tokens, some of them replaced by new ones at distant places, there is one best alignment."""
    words = list(range(10))
    for places in combinations(range(10), 2):
        changed = [word + 100 if place in places else word for place, word in enumerate(words)]
        kept = [True] * 10
        for match in difflib.SequenceMatcher(None, changed, words, autojunk=False).get_matching_blocks():
            kept[match.a : match.a + match.size] = [False] * match.size
        assert edited(changed, words) == kept == [place in places for place in range(10)]


def test_ends_that_are_missing_or_added() -> None:
    assert edited([1, 2, 3], [1, 2]) == [False, False, True]
    assert edited([1, 2], [1, 2, 3]) == [False, False]
    assert edited([], [1]) == []
    assert edited([1, 2], []) == [True, True]


def test_a_tie_goes_along_the_diagonal() -> None:
    # Keeping the 2 would take a deletion and an insertion, which cost the same as two substitutions.
    assert edited([1, 2], [2, 3]) == [True, True]


def test_long_answers_are_no_matter_of_minutes() -> None:
    tokens = np.random.default_rng(0).integers(0, 50, 1500).tolist()
    assert edited(tokens, tokens) == [False] * 1500
    assert sum(edited(tokens, [*tokens[:700], 99, *tokens[701:]])) == 1
