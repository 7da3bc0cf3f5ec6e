"""Prompts that begin alike, such as those of one judge: in which groups the common start is worth computing once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Final

_LEAST_SAVED: Final = 64
"""Tokens that a group must save: a pass of its own and smaller batches cost about as much as some tokens."""
_LEAST_REPEATED: Final = 128
"""Tokens of a prompt from which its repetitions are a group; shorter ones are computed once for each batch of rows."""


@dataclass
class Group:
    """Prompts with a common start.

    Attributes:
        start: tokens of the common start; 0 where it is not worth a pass of its own.
        members: numbers of the prompts, the longest first and repetitions of one prompt side by side.
    """

    start: int
    members: list[int] = field(default_factory=list)


def groups_by_start(prompts: Sequence[Sequence[int]]) -> list[Group]:
    """Every prompt in one group, groups with longer prompts first.

    A group within another, as of questions about one text behind one instruction, is made where it saves tokens.

    Args:
        prompts: the tokens of each prompt; what can be shared of them.
    """
    order = sorted(range(len(prompts)), key=lambda number: (tuple(prompts[number]), number))
    # Different prompts up to each place of the order, less one.
    changes = (tuple(prompts[one]) != tuple(prompts[other]) for one, other in pairwise(order))
    different = list(accumulate(changes, initial=0))
    groups = [Group(0)]
    # Parts of the sorted prompts with the number of tokens that they are known to share, and the group around each.
    parts = [(0, len(order), 0, groups[0])] if order else []
    while parts:
        low, high, known, group = parts.pop()
        # What the first and the last of sorted prompts share is shared by all between them.
        shared = _common(prompts[order[low]], prompts[order[high - 1]], known)
        if _is_worth(high - low, different[high - 1] - different[low] + 1, shared, group.start):
            group = Group(shared)
            groups.append(group)
        position = low
        while position < high and len(prompts[order[position]]) == shared:
            group.members.append(order[position])
            position += 1
        while position < high:
            token = prompts[order[position]][shared]
            after = bisect_right(order, token, position, high, key=lambda number: prompts[number][shared])
            if after - position > 1:
                parts.append((position, after, shared + 1, group))
            else:
                group.members.append(order[position])
            position = after
    for group in groups:
        group.members.sort(key=lambda number: (-len(prompts[number]), tuple(prompts[number]), number))
    return sorted((group for group in groups if group.members), key=lambda group: -len(prompts[group.members[0]]))


def _common(first: Sequence[int], last: Sequence[int], known: int) -> int:
    """Tokens that two prompts share from the start, of which ``known`` are known."""
    least = min(len(first), len(last))
    return next((index for index in range(known, least) if first[index] != last[index]), least)


def _is_worth(count: int, different: int, shared: int, around: int) -> bool:
    """Whether computing a start alone saves enough of what ``count`` prompts would compute in the group around."""
    if different == 1 and shared < _LEAST_REPEATED:
        return False
    passes = count if different == 1 else different
    return passes * (shared - around) - shared >= _LEAST_SAVED
