"""Which process of how many this is, from the variables that launchers set."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's global rank, 0 when alone. The launcher translates Slurm's variables into these."""
    return _number("RANK", 0)


def world_size() -> int:
    """The number of processes of this job, 1 when alone."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        # The launcher refuses such a value; until then errors must have somewhere to go.
        return default
