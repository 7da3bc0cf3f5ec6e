"""References that are complete, few, incomplete or wrong: what methods are tried on, beside the shipped pools."""

import dataclasses
import difflib
import itertools
from collections.abc import Collection, Mapping
from typing import Final

from data_registry.testbed.pools import (
    ASSIST_SKILLS,
    COVERED_PLAIN_SKILLS,
    REASON_SKILLS,
    Row,
    pool_rng,
    sft_row,
    skill_examples,
)
from data_registry.testbed.world import SHIPPED_WORLD_SEED, World, generate_world

REFERENCE_POOLS: Final[Mapping[str, tuple[str, ...]]] = {"assist": ASSIST_SKILLS, "reason": REASON_SKILLS}
"""The skills of each pool of references."""

SKILL_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "lookup": ("fact", "kind"),
    "howto": ("howto",),
    "format": ("format",),
    "numbers": ("add", "compare", "count"),
    "order": ("reverse", "sort"),
}
"""Skills that are alike in what they need; leaving out a group leaves a gap that no other skill of it fills."""

ROWS_PER_POOL: Final = 200


def reference_rows(
    seed: int = 0,
    world_seed: int = SHIPPED_WORLD_SEED,
    *,
    num_rows: int = ROWS_PER_POOL,
    without: Collection[str] = (),
    answers_of: int | None = None,
) -> dict[str, list[Row]]:
    """Draw the reference pools; with the defaults they are the pools ``assist`` and ``reason``.

    Args:
        seed: the seed of the draws.
        world_seed: the world that the model was trained on.
        num_rows: rows of each pool; fewer are a prefix of more.
        without: skills that no reference shows, not even as the first half of a composite request. Names of skills, or
            of groups in ``SKILL_GROUPS``.
        answers_of: the seed of another world, whose answers stand in place of the right ones: other facts and other
            recipes. The prompts stay the same, and so do answers that all worlds share (kinds, and what is computed).

    Returns:
        Rows with ``messages`` by the pool's name; a pool with no skill left is absent.

    Raises:
        ValueError: a name in ``without`` is unknown or nothing is left, ``num_rows`` is below 1, or the skills that are
            left in a pool do not have so many prompts (kind has 150).
    """
    if num_rows < 1:
        raise ValueError(f"num_rows must be at least 1, not {num_rows}")
    left_out = _skills_of(without)
    world = generate_world(world_seed)
    if answers_of is not None:
        world = with_answers_of(world, answers_of)
    prefixes = tuple(skill for skill in COVERED_PLAIN_SKILLS if skill not in left_out)
    drawn = {}
    for pool, skills in REFERENCE_POOLS.items():
        left = tuple(skill for skill in skills if skill not in left_out)
        if left:
            examples = skill_examples(world, pool_rng(pool, seed), left, prefix_skills=prefixes)
            try:
                drawn[pool] = [sft_row(one.prompt, one.answer) for one in itertools.islice(examples, num_rows)]
            except RuntimeError as error:
                raise ValueError(f"{error} of pool {pool!r}: ask for fewer rows, or leave out fewer skills") from error
    if not drawn:
        raise ValueError("no skill is left for the references")
    return drawn


def with_answers_of(world: World, other_seed: int) -> World:
    """Return the world with the facts, recipes and translations of another, and the sides of its own."""
    other = generate_world(other_seed)
    return dataclasses.replace(
        world, facts=other.facts, instructions=other.instructions, translations=other.translations
    )


def _skills_of(names: Collection[str]) -> frozenset[str]:
    known = {skill: (skill,) for skills in REFERENCE_POOLS.values() for skill in skills} | dict(SKILL_GROUPS)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"references have no skill {name!r}.{hint} Known: {', '.join(known)}.")
    return frozenset(skill for name in names for skill in known[name])
