"""When the rows of a basis are recomputed: every so many steps, or when they have probably turned by so many degrees.

How far rows turn is measured at every refresh anyway, from the old and the new rows. Between refreshes it is predicted
and costs nothing: weights move by the learning rate's measure, so that the angle is taken to grow in proportion to the
sum of the learning rates since the last refresh. A basis that turns fast is refreshed often, and one that hardly turns,
as when the schedule ends, is left alone.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist

RefreshEvery = int | Literal["auto"]

# The steps before the first measurement, and how much longer than the last a following interval may at most be, in sums
# of learning rates: a prediction far beyond what was measured is worth nothing.
_FIRST_STEPS = 5
_MOST_GROWTH = 2.0


class RefreshTimes:
    """Says before which steps a refresh is due; the same on all ranks.

    Args:
        every: the number of steps between refreshes, 0 for none, or ``"auto"``.
        at_start: whether a refresh is due before the first step.
        max_drift: for ``"auto"``, the predicted angle in degrees at which a refresh is due.

    Attributes:
        count: the number of refreshes so far.
    """

    def __init__(self, every: RefreshEvery, *, at_start: bool, max_drift: float) -> None:
        self.count = 0
        self._every, self._at_start, self._max_drift = every, at_start, max_drift
        self._steps = 0
        self._moved = 0.0
        self._allowed: float | None = None

    def is_due(self, step: int) -> bool:
        """Whether a refresh is due before optimizer step ``step`` (counted from 0)."""
        if step == 0:
            return self._at_start
        if self._every != "auto":
            return self._every > 0 and step % self._every == 0
        if self._allowed is None:
            return self._steps >= _FIRST_STEPS
        return self._steps > 0 and self._moved >= self._allowed

    def count_step(self, learning_rate: float) -> None:
        """Take note of an optimizer step at this learning rate."""
        self._steps += 1
        self._moved += learning_rate

    def refreshed(self, drift_degrees: float, device: torch.device) -> None:
        """Take note of a refresh, and of how far the rows had turned. Collective for ``"auto"``.

        Args:
            drift_degrees: the mean principal angle between the old and the new rows.
            device: the compute device, on which ranks agree on the angle.
        """
        self.count += 1
        if self._every == "auto" and self._moved > 0:
            # Ranks that disagreed in the last digit would one day refresh before different steps, and wait for ever.
            agreed = torch.tensor([drift_degrees], dtype=torch.float64, device=device)
            if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
                dist.broadcast(agreed, 0)
            drift = float(agreed)
            growth = self._max_drift / drift if drift * _MOST_GROWTH > self._max_drift else _MOST_GROWTH
            self._allowed = self._moved * growth
        self._steps, self._moved = 0, 0.0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; JSON-ready."""
        return {"count": self.count, "steps": self._steps, "moved": self._moved, "allowed": self._allowed}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state`."""
        self.count, self._steps = int(state["count"]), int(state["steps"])
        self._moved = float(state["moved"])
        self._allowed = None if state["allowed"] is None else float(state["allowed"])
