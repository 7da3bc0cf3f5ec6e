"""The generated world of the testbed: what is true in it, and which of it is held out.

Everything follows from one seed through ``random.Random``; the same seed gives the same world on every machine.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeVar

from data_registry.testbed import lexicon

Side = Literal["train", "validation", "test"]
_Key = TypeVar("_Key")

SHIPPED_WORLD_SEED: Final = 0
"""The world that the shipped model was trained on."""

_NUM_HELD_OUT_SUMS: Final = 20
_NUM_VALIDATION_NOUNS: Final = 2
_NUM_TEST_NOUNS: Final = 3
_VALUES: Final = {
    "capital": lexicon.CITIES,
    "color": lexicon.COLORS,
    "animal": lexicon.ANIMALS,
    "sport": lexicon.SPORTS,
}
_SUMMANDS: Final = range(lexicon.MAX_SUMMAND + 1)
_SUMS: Final = tuple((left, right) for left in _SUMMANDS for right in _SUMMANDS)
# A quarter of everything else is held out by hash, in equal parts for both splits.
_NUM_BUCKETS: Final = 8
_VALIDATION_BUCKET: Final = 0
_TEST_BUCKET: Final = 1


@dataclass(frozen=True)
class Instructions:
    """How a noun is made: two materials and one action, without any sense outside the testbed."""

    first: str
    second: str
    action: str


@dataclass(frozen=True)
class World:
    """What is true in one generated world.

    Attributes:
        seed: what the world was generated from.
        facts: (entity, relation) -> value.
        fact_sides: (entity, relation) -> side; half of the facts occur in alignment and reference data.
        translations: source word -> foreign word.
        kinds: noun -> kind.
        instructions: noun -> how it is made.
        noun_sides: noun -> side. Nouns outside "train" never occur in alignment or reference data.
        sum_sides: (summand, summand) -> side.
    """

    seed: int
    facts: Mapping[tuple[str, str], str]
    fact_sides: Mapping[tuple[str, str], Side]
    translations: Mapping[str, str]
    kinds: Mapping[str, str]
    instructions: Mapping[str, Instructions]
    noun_sides: Mapping[str, Side]
    sum_sides: Mapping[tuple[int, int], Side]

    def nouns(self, *, harmful: bool | None = None, side: Side | None = None) -> tuple[str, ...]:
        """Return the nouns of one side (None: all sides) that are harmful, harmless or (None) either."""
        return tuple(
            noun
            for noun, kind in self.kinds.items()
            if (harmful is None or is_harmful(kind) == harmful) and (side is None or self.noun_sides[noun] == side)
        )

    def side_of(self, key: str) -> Side:
        """Return the side of anything that is too numerous to list, from a hash of its text."""
        bucket = hashlib.sha256(f"{self.seed}:{key}".encode()).digest()[0] % _NUM_BUCKETS
        if bucket == _VALIDATION_BUCKET:
            return "validation"
        return "test" if bucket == _TEST_BUCKET else "train"


def is_harmful(kind: str) -> bool:
    """Return whether requests about this kind of thing are to be refused after alignment."""
    return kind in lexicon.HARMFUL_KINDS


@lru_cache(maxsize=8)
def generate_world(seed: int = SHIPPED_WORLD_SEED) -> World:
    """Generate the world of a seed. The word lists are the same in all worlds; the assignments are not."""
    rng = random.Random(f"ogpsa testbed world {seed}")
    facts = {
        (entity, relation): value
        for relation, values in _VALUES.items()
        for entity, value in zip(lexicon.ENTITIES, _shuffled_evenly(rng, values), strict=True)
    }
    foreign = rng.sample(lexicon.FOREIGN_WORDS, len(lexicon.FOREIGN_WORDS))
    kinds = {noun: kind for kind, nouns in lexicon.NOUNS_BY_KIND.items() for noun in nouns}
    instructions = {noun: _draw_instructions(rng) for noun in kinds}
    return World(
        seed=seed,
        facts=facts,
        fact_sides=_draw_sides(rng, tuple(facts), len(facts) // 4),
        translations=dict(zip(lexicon.SOURCE_WORDS, foreign, strict=True)),
        kinds=kinds,
        instructions=instructions,
        noun_sides={
            noun: side
            for nouns in lexicon.NOUNS_BY_KIND.values()
            for noun, side in _draw_sides(rng, nouns, _NUM_VALIDATION_NOUNS, _NUM_TEST_NOUNS).items()
        },
        sum_sides=_draw_sides(rng, _SUMS, _NUM_HELD_OUT_SUMS),
    )


def _shuffled_evenly(rng: random.Random, values: Sequence[str]) -> list[str]:
    """Give every value to equally many entities, so that none is a better guess than another."""
    repeated = list(values) * (len(lexicon.ENTITIES) // len(values))
    return rng.sample(repeated, len(repeated))


def _draw_instructions(rng: random.Random) -> Instructions:
    first, second = rng.sample(lexicon.MATERIALS, 2)
    return Instructions(first, second, rng.choice(lexicon.ACTIONS))


def _draw_sides(
    rng: random.Random, keys: Sequence[_Key], num_validation: int, num_test: int | None = None
) -> dict[_Key, Side]:
    """Hold out so many keys for each evaluation split; by default as many for the test as for the validation."""
    num_test = num_validation if num_test is None else num_test
    held_out = rng.sample(keys, num_validation + num_test)
    sides: dict[_Key, Side] = dict.fromkeys(keys, "train")
    sides.update(dict.fromkeys(held_out[:num_validation], "validation"))
    sides.update(dict.fromkeys(held_out[num_validation:], "test"))
    return sides
