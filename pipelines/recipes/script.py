"""A chain as a shell script, for people who want to repeat it step by step."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from pipelines.recipes.chain import Chain, Step


def typed(steps: Sequence[Step]) -> tuple[str, ...]:
    """Each step as it would be typed."""
    return tuple(shlex.join(["ogpsa", *step.arguments]) for step in steps)


def shell_script(chain: Chain, *, heading: str, why_threads: str) -> str:
    """The text of a script that runs a chain, from wherever it is called.

    Args:
        chain: the chain to run; the script is meant to lie in the directory of the chain.
        heading: a line that says what the script is.
        why_threads: the reason why the recipe limits the threads, for recipes that do.
    """
    lines = ["#!/usr/bin/env bash", f"# {heading}", "set -eu"]
    if not chain.out.is_absolute():
        back = os.path.relpath(Path.cwd(), chain.out)
        lines.append(f'cd -- "$(dirname -- "$0")"/{shlex.quote(back)}')
    if chain.threads is not None:
        lines.append(f"export OMP_NUM_THREADS={chain.threads}  # {why_threads}")
    return "\n".join([*lines, *typed(chain.steps)]) + "\n"
