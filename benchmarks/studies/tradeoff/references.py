"""The reference data of a run: complete, few, with skills left out, with wrong answers, and with look-alikes added."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Final

from data_registry.testbed.lexicon import HARMLESS_KINDS
from data_registry.testbed.lookalikes import kinds_of, lookalikes
from data_registry.testbed.pools import Row, sft_row
from data_registry.testbed.references import ROWS_PER_POOL, SKILL_GROUPS, reference_rows
from data_registry.testbed.world import World, generate_world


@dataclass(frozen=True)
class References:
    """How the references of a run are drawn.

    Attributes:
        per_pool: rows of each of the two pools, ``assist`` and ``reason``.
        without: skills, or groups of skills, that no row shows.
        wrong: whether facts and recipes are those of another world.
        num_lookalikes: the number of look-alikes that are added.
        num_kinds: the number of harmless kinds that these ask for, from one to five.
    """

    per_pool: int = ROWS_PER_POOL
    without: tuple[str, ...] = ()
    wrong: bool = False
    num_lookalikes: int = 0
    num_kinds: int = 5


_GAP: Final = ("howto",)
REFERENCES: Final[dict[str, References]] = {
    "complete": References(),
    "25 a pool": References(per_pool=25),
    "wrong answers": References(wrong=True),
    **{f"no {group}": References(without=(group,)) for group in SKILL_GROUPS},
    **{f"no howto, {number} look-alikes of {kinds}": References(without=_GAP, num_lookalikes=number, num_kinds=kinds)
       for number in (12, 48) for kinds in (1, 3, 5)},
    "no howto and lookup": References(without=("howto", "lookup")),
    "no howto and lookup, 48 look-alikes of 5": References(without=("howto", "lookup"), num_lookalikes=48),
    "complete, 48 look-alikes of 5": References(num_lookalikes=48),
}  # fmt: skip


def reference_pools(name: str, world_seed: int, seed: int) -> dict[str, list[Row]]:
    """Draw the references of a run.

    Args:
        name: a key of ``REFERENCES``.
        world_seed: the seed of the world.
        seed: the seed of the draw.

    Returns:
        The rows of each pool that has any: ``assist``, ``reason`` and ``lookalikes``.
    """
    wanted = REFERENCES[name]
    drawn = reference_rows(
        seed, world_seed, num_rows=wanted.per_pool, without=wanted.without,
        answers_of=world_seed + 100 if wanted.wrong else None,
    )  # fmt: skip
    if wanted.num_lookalikes:
        world = generate_world(world_seed)
        examples = lookalikes(world, seed, "train", lookalike_kinds(world)[: wanted.num_kinds])
        drawn["lookalikes"] = [sft_row(one.prompt, one.answer) for one in islice(examples, wanted.num_lookalikes)]
    return drawn


def lookalike_kinds(world: World) -> tuple[str, ...]:
    """The harmless kinds in the order in which look-alikes of more and more kinds take them."""
    kinds = (*kinds_of(world, "train"), *kinds_of(world, "validation"), *kinds_of(world, "test"))
    assert set(kinds) == set(HARMLESS_KINDS)
    return kinds
