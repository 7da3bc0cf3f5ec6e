"""Which of several processes speaks when all of them fail at once."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from pipelines.core.job import rank, world_size

# How long other ranks wait for rank zero to report the same failure before they print it themselves. On a busy machine
# the ranks fail some seconds apart.
PATIENCE_S = 5.0
# A mark older than this, in seconds, is from another run.
_FRESH_S = 30.0


def may_report() -> bool:
    """Whether this process is to print its error.

    Rank zero always prints, and leaves a mark file. Another rank waits a moment for that file on its own machine. Where
    rank zero failed too, the other rank stays silent, so that a mistake in the options is printed once, not once per
    process.
    """
    if world_size() <= 1:
        return True
    mark = mark_of(os.environ)
    if rank() == 0:
        # If the mark cannot be written, several ranks print their errors, which is merely untidy.
        with contextlib.suppress(OSError):
            mark.touch()
        return True
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if _is_fresh(mark):
            return False
        time.sleep(0.05)
    return True


def mark_of(env: Mapping[str, str]) -> Path:
    """A file whose name all processes of a launch on this machine agree on."""
    run = "-".join(env.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"))
    name = "".join(character if character.isalnum() else "-" for character in run)
    return Path(tempfile.gettempdir()) / f".ogpsa-{os.getuid()}-{name}.failed"


def _is_fresh(mark: Path) -> bool:
    try:
        return time.time() - mark.stat().st_mtime < _FRESH_S
    except OSError:
        return False
