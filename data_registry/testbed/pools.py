"""The testbed's data sets, generated row by row in the normal form of the registry."""

import difflib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from data_registry.testbed.lookalikes import lookalikes
from data_registry.testbed.skills import SKILLS, Example, draw_howto, draw_refusal, pretraining_examples
from data_registry.testbed.world import SHIPPED_WORLD_SEED, Side, World, generate_world

Row = dict[str, list[dict[str, str]]]
Task = Literal["sft", "preference"]

ASSIST_SKILLS: Final = ("fact", "format", "kind", "howto")
REASON_SKILLS: Final = ("add", "compare", "reverse", "sort", "count")
COVERED_PLAIN_SKILLS: Final = ("fact", "format", "kind", *REASON_SKILLS)
_MAX_REPEATS: Final = 10_000
_PRETRAINING_ROWS: Final = 1_800 * 96


@dataclass(frozen=True)
class Pool:
    """One named data set of the testbed.

    Attributes:
        name: the name of the pool, as passed to ``rows``.
        description: one sentence for listings.
        task: "sft" rows have ``messages``; "preference" rows have ``prompt``, ``chosen`` and ``rejected``.
        size: number of rows; all of them are distinct, except in ``pretrain``.
    """

    name: str
    description: str
    task: Task
    size: int


POOLS: Final[dict[str, Pool]] = {
    pool.name: pool
    for pool in (
        Pool("safety-sft", "Harmful how-to requests, each with a refusal.", "sft", 600),
        Pool("safety-dpo", "Harmful how-to requests; the refusal is preferred to the answer.", "preference", 600),
        Pool("assist", "Reference data: facts, formats, kinds and harmless how-to requests.", "sft", 200),
        Pool("reason", "Reference data: add, compare, reverse, sort and count.", "sft", 200),
        Pool("general", "Replay data: the skills of assist and reason, none of their prompts.", "sft", 600),
        Pool("lookalikes", "Harmless how-to requests on nouns of three kinds, for anchors.", "sft", 400),
        Pool("lookalikes-validation", "The same for other nouns, and for a fourth kind.", "sft", 200),
        Pool("lookalikes-test", "The same for yet other nouns, and for a fifth kind.", "sft", 200),
        Pool("pretrain", "What the testbed model was trained on, in order.", "sft", _PRETRAINING_ROWS),
    )
}


def rows(
    name: str, seed: int = 0, num_samples: int | None = None, world_seed: int = SHIPPED_WORLD_SEED
) -> Iterator[Row]:
    """Generate the rows of a pool; fewer samples are a prefix of more.

    Args:
        name: a key of ``POOLS``.
        seed: the seed with which rows are sampled; the world stays the same.
        num_samples: the number of rows, at most the size of the pool; None for all.
        world_seed: the generated world, which must be the one that the model was trained on.

    Returns:
        Rows with ``messages``, or with ``prompt``, ``chosen`` and ``rejected``, of single-turn conversations.

    Raises:
        ValueError: the pool is unknown, or does not have so many rows.
    """
    pool = find_pool(name)
    if num_samples is None:
        num_samples = pool.size
    if not 0 <= num_samples <= pool.size:
        raise ValueError(
            f"testbed pool {name!r} has {pool.size} rows; num_samples must be from 0 to that, not {num_samples}"
        )
    return itertools.islice(_STREAMS[name](generate_world(world_seed), seed), num_samples)


def find_pool(name: str) -> Pool:
    """Return the pool of a name.

    Raises:
        ValueError: there is none; the message lists the names and suggests the nearest.
    """
    if name in POOLS:
        return POOLS[name]
    near = difflib.get_close_matches(name, POOLS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown testbed pool {name!r}.{hint} Known: {', '.join(POOLS)}.")


def sft_row(prompt: str, answer: str) -> Row:
    """Return the row of a request with its answer."""
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


def _preference_row(prompt: str, chosen: str, rejected: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def pool_rng(pool: str, seed: int) -> random.Random:
    """Return the source of the choices that make a pool."""
    return random.Random(f"ogpsa testbed pool {pool} {seed}")


def _refused_requests(world: World, rng: random.Random) -> Iterator[tuple[Example, str]]:
    """Yield harmful requests of the train side with refusals; a request may come again with another refusal."""
    seen: set[tuple[str, str]] = set()
    while True:
        request, refusal = draw_howto(world, rng, "train", harmful=True), draw_refusal(rng)
        if (request.prompt, refusal) not in seen:
            seen.add((request.prompt, refusal))
            yield request, refusal


def _safety_sft(world: World, seed: int) -> Iterator[Row]:
    for request, refusal in _refused_requests(world, pool_rng("safety-sft", seed)):
        yield sft_row(request.prompt, refusal)


def _safety_dpo(world: World, seed: int) -> Iterator[Row]:
    for request, refusal in _refused_requests(world, pool_rng("safety-dpo", seed)):
        yield _preference_row(request.prompt, refusal, request.answer)


def skill_examples(
    world: World,
    rng: random.Random,
    skills: tuple[str, ...],
    excluded: frozenset[str] = frozenset(),
    prefix_skills: tuple[str, ...] = COVERED_PLAIN_SKILLS,
) -> Iterator[Example]:
    """Yield examples with distinct prompts, the skills in turn, so that any prefix is balanced.

    Args:
        world: the world that the examples are of; they are of its train side.
        rng: source of all choices.
        skills: the names of the skills, in order.
        excluded: prompts that must not come.
        prefix_skills: the skills that may stand before a how-to request.
    """
    seen = set(excluded)
    for name in itertools.cycle(skills):
        for _ in range(_MAX_REPEATS):
            if name == "howto":
                # Composites must not bring in translate, the skill that no reference covers.
                example = draw_howto(world, rng, "train", harmful=False, prefix_skills=prefix_skills)
            else:
                example = SKILLS[name].draw(world, rng, "train")
            if example.prompt not in seen:
                break
        else:
            raise RuntimeError(f"skill {name!r} has no more distinct prompts after {len(seen)} examples")
        seen.add(example.prompt)
        yield example


def _assist(world: World, seed: int) -> Iterator[Row]:
    for example in skill_examples(world, pool_rng("assist", seed), ASSIST_SKILLS):
        yield sft_row(example.prompt, example.answer)


def _reason(world: World, seed: int) -> Iterator[Row]:
    for example in skill_examples(world, pool_rng("reason", seed), REASON_SKILLS):
        yield sft_row(example.prompt, example.answer)


def _general(world: World, seed: int) -> Iterator[Row]:
    references = itertools.chain(
        itertools.islice(_assist(world, seed), POOLS["assist"].size),
        itertools.islice(_reason(world, seed), POOLS["reason"].size),
    )
    excluded = frozenset(row["messages"][0]["content"] for row in references)
    # Half of the rows from each group, as if both reference pools were mixed in equal parts.
    rng = pool_rng("general", seed)
    skills = ASSIST_SKILLS * len(REASON_SKILLS) + REASON_SKILLS * len(ASSIST_SKILLS)
    order = tuple(rng.sample(skills, len(skills)))
    for example in skill_examples(world, rng, order, excluded):
        yield sft_row(example.prompt, example.answer)


def _lookalikes(side: Side) -> Callable[[World, int], Iterator[Row]]:
    def rows_of_side(world: World, seed: int) -> Iterator[Row]:
        return (sft_row(example.prompt, example.answer) for example in lookalikes(world, seed, side))

    return rows_of_side


def _pretrain(world: World, seed: int) -> Iterator[Row]:
    for example in pretraining_examples(world, seed):
        yield sft_row(example.prompt, example.answer)


_STREAMS: Final[dict[str, Callable[[World, int], Iterator[Row]]]] = {
    "safety-sft": _safety_sft,
    "safety-dpo": _safety_dpo,
    "assist": _assist,
    "reason": _reason,
    "general": _general,
    "lookalikes": _lookalikes("train"),
    "lookalikes-validation": _lookalikes("validation"),
    "lookalikes-test": _lookalikes("test"),
    "pretrain": _pretrain,
}
