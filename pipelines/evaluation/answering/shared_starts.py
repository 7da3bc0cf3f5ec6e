"""Prompts that begin alike, such as those of one judge: in which groups the common start is worth computing once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
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


def groups_by_start(prompts: Sequence[Sequence[Hashable]]) -> list[Group]:
    """Every prompt in one group, groups with longer prompts first.

    A group within another, as of questions about one text behind one instruction, is made where it saves tokens.

    Args:
        prompts: the tokens of each prompt; what can be shared of them.
    """
    order = sorted(range(len(prompts)), key=lambda number: (tuple(prompts[number]), number))
    groups = [Group(0)]
    # Parts of the sorted prompts that begin with the same tokens, and the group around each.
    parts = [(0, len(order), groups[0])] if order else []
    while parts:
        low, high, group = parts.pop()
        # What the first and the last of sorted prompts share is shared by all between them.
        shared = _common(prompts[order[low]], prompts[order[high - 1]])
        if _is_worth(prompts, order[low:high], shared, group.start):
            group = Group(shared)
            groups.append(group)
        position = low
        while position < high:
            first = order[position]
            after = position + 1
            if len(prompts[first]) > shared:
                while after < high and prompts[order[after]][shared] == prompts[first][shared]:
                    after += 1
            if after - position > 1:
                parts.append((position, after, group))
            else:
                group.members.append(first)
            position = after
    for group in groups:
        group.members.sort(key=lambda number: (-len(prompts[number]), tuple(prompts[number]), number))
    return sorted((group for group in groups if group.members), key=lambda group: -len(prompts[group.members[0]]))


def _common(first: Sequence[Hashable], last: Sequence[Hashable]) -> int:
    pairs = enumerate(zip(first, last, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(first), len(last)))


def _is_worth(prompts: Sequence[Sequence[Hashable]], members: Sequence[int], shared: int, around: int) -> bool:
    """Whether computing a start for its members alone saves enough of what they would compute in the group around."""
    different = len({tuple(prompts[number]) for number in members})
    if different == 1 and shared < _LEAST_REPEATED:
        return False
    count = len(members) if different == 1 else different
    return count * (shared - around) - shared >= _LEAST_SAVED
