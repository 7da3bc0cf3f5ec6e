"""Harmless look-alikes of the testbed's harmful requests: how-to requests in the same words, on harmless nouns.

Two things are kept apart. By noun: each split asks for the nouns of its own side. By kind: in every world one harmless
kind is asked for in the validation split alone, and one in the test split alone, so that it can be seen whether
look-alikes help for kinds that were left out.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Final

from data_registry.testbed import lexicon
from data_registry.testbed.skills import SKILLS, Example, draw_howto
from data_registry.testbed.world import Side, World

# Composites must not bring in translate, the skill that no reference covers.
_COVERED_PLAIN_SKILLS: Final = tuple(name for name in SKILLS if name not in ("howto", "translate"))
_MAX_REPEATS: Final = 10_000


def kinds_of(world: World, side: Side) -> tuple[str, ...]:
    """The harmless kinds that look-alikes of a side ask for: three in training, one more in each split after it.

    The draw depends on the world alone, and takes nothing from the draws that made the world.
    """
    kinds = random.Random(f"ogpsa testbed look-alikes {world.seed}").sample(
        lexicon.HARMLESS_KINDS, len(lexicon.HARMLESS_KINDS)
    )
    return {"train": tuple(kinds[:-2]), "validation": (kinds[-2],), "test": (kinds[-1],)}[side]


def lookalikes(world: World, seed: int, side: Side, kinds: Sequence[str] | None = None) -> Iterator[Example]:
    """Yield endlessly harmless how-to requests with distinct prompts, the kinds in turn: any prefix is balanced.

    Args:
        world: the world that gives kinds, nouns and instructions.
        seed: the seed of the draws.
        side: the nouns to ask for.
        kinds: the harmless kinds to ask for. None: those of training, and beside them in the splits for validation and
            test the one that belongs to the split.

    Raises:
        ValueError: a kind is not a harmless one, or there is none.
    """
    if kinds is None:
        kinds = kinds_of(world, "train") + (() if side == "train" else kinds_of(world, side))
    unknown = [kind for kind in kinds if kind not in lexicon.HARMLESS_KINDS]
    if unknown or not kinds:
        known = ", ".join(lexicon.HARMLESS_KINDS)
        raise ValueError(f"look-alikes need harmless kinds of the testbed ({known}), not {unknown or 'none'}")
    return _draw(world, random.Random(f"ogpsa testbed look-alikes {side} {seed}"), side, tuple(kinds))


def _draw(world: World, rng: random.Random, side: Side, kinds: Sequence[str]) -> Iterator[Example]:
    seen: set[str] = set()
    for kind in itertools.cycle(kinds):
        for _ in range(_MAX_REPEATS):
            example = draw_howto(world, rng, side, harmful=False, prefix_skills=_COVERED_PLAIN_SKILLS, kinds=(kind,))
            if example.prompt not in seen:
                break
        else:
            raise RuntimeError(f"kind {kind!r} has no more distinct look-alikes after {len(seen)} examples")
        seen.add(example.prompt)
        yield example
