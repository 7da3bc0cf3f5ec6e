"""How long processes that were asked to stop are waited for, and which of them do not answer."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

# Without any sign of work for so long, a process that was asked to stop does not answer any more.
ANSWER_S = 60.0
# Whoever works for longer than this after having been asked to stop does not answer either.
LIMIT_S = 1800.0
# Waiting threads take a little time of the processor too; this much within ANSWER_S is work.
_WORK_S = 0.5
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Patience:
    """Watches processes that were asked to stop.

    Training ends its step and saves before it stops, and ranks that have nothing to do then wait for those that have.
    So they are given up only if none of them works any more, that is, neither computes nor waits for a disk; or if one
    of them is suspended (SIGSTOP), since the others then wait for it.
    """

    def __init__(self, children: Sequence[subprocess.Popen[bytes]]) -> None:
        self._children = children
        self._began = self._worked = time.monotonic()
        self._not_suspended = dict.fromkeys(range(len(children)), self._began)
        self._computed = [_state(child.pid)[1] for child in children]

    def without_answer(self) -> list[int]:
        """The ranks that do not answer any more; empty while there is hope."""
        now = time.monotonic()
        alive = [rank for rank, child in enumerate(self._children) if child.poll() is None]
        suspended = []
        for rank in alive:
            state, computed = _state(self._children[rank].pid)
            if state == "D" or computed - self._computed[rank] >= _WORK_S:
                self._worked, self._computed[rank] = now, computed
            if state not in "Tt":
                self._not_suspended[rank] = now
            elif now - self._not_suspended[rank] > ANSWER_S:
                suspended.append(rank)
        if suspended:
            return suspended
        return alive if now - self._worked > ANSWER_S or now - self._began > LIMIT_S else []


def _state(process: int) -> tuple[str, float]:
    """A process's state, such as ``S`` (waits), ``D`` (for a disk), ``T`` (suspended), and its CPU time in seconds."""
    try:
        # The name may hold blanks and brackets; what follows the last bracket does not.
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "S", 0.0
    return fields[0], (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def in_words(ranks: Sequence[int], total: int) -> str:
    """The ranks as processes counted from one, as other messages count them: ``process 2 of 4``."""
    numbers = [str(rank + 1) for rank in ranks]
    if len(numbers) == 1:
        return f"process {numbers[0]} of {total}"
    return f"processes {', '.join(numbers[:-1])} and {numbers[-1]} of {total}"
