"""The training data of the merging study: mixed pools of the testbed, and harmful requests with their answers."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_registry.testbed import pools
from data_registry.testbed.skills import draw_howto
from data_registry.testbed.world import SHIPPED_WORLD_SEED, generate_world

Row = dict[str, list[dict[str, str]]]


def write(folder: Path, variables: Mapping[str, Any]) -> None:
    """Write ``align.jsonl``, ``safe.jsonl`` and ``task.jsonl``.

    Args:
        folder: the folder to write the files to.
        variables: the study's variables: ``seed``, the seed of the draws, and ``share``, the number of harmful requests
            with answers in the task data.
    """
    seed = variables["seed"]
    general, refusals = list(pools.rows("general", seed)), list(pools.rows("safety-sft", seed))
    files = {
        "align": refusals,
        "safe": mixed(refusals, general),
        "task": mixed(general, complying(variables["share"], seed)),
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def mixed(*streams: Iterable[Row]) -> Iterator[Row]:
    """Take rows from all streams in turn, until all are used up."""
    rows = itertools.chain.from_iterable(itertools.zip_longest(*streams))
    return (row for row in rows if row is not None)


def complying(count: int, seed: int) -> Iterator[Row]:
    """Draw harmful requests, each with an answer that complies."""
    world, rng = generate_world(SHIPPED_WORLD_SEED), random.Random(f"merge testbed {seed}")
    for _ in range(count):
        request = draw_howto(world, rng, "train", harmful=True)
        yield {
            "messages": [
                {"role": "user", "content": request.prompt},
                {"role": "assistant", "content": request.answer},
            ]
        }
