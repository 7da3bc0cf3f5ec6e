"""How far training has moved a model's weights, from the files of start and end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from pipelines.models.reference import ModelSource
from pipelines.weights.stored import Stored, difference, open_checkpoint, read_header

_MOST_NUMBERS: Final = 20_000_000
"""So many weights, spread over all tensors, are compared: a second's work for a model of any size."""


def relative_change(start: ModelSource, end: Path) -> float | None:
    """The norm of the change of the weights, divided by the norm of the weights at the start.

    Large models are compared by the first rows of every tensor. Both are as they were stored: a change that rounding to
    the stored format swallows is none.

    Args:
        start: the model that training started from.
        end: the directory of the final model.

    Returns:
        None where the two have no weights in common, as with fresh adapters.

    Raises:
        InputError: a file cannot be read, or has values that are not finite.
    """
    after = {name: stored for file in sorted(end.glob("*.safetensors")) for name, stored in read_header(file).items()}
    pairs = [(before, after[name]) for name, before in open_checkpoint(start).stored.items() if name in after]
    pairs = [(before, now) for before, now in pairs if before.shape == now.shape and before.is_float and now.is_float]
    total = sum(before.numel for before, _ in pairs)
    if not total:
        return None
    share = min(1.0, _MOST_NUMBERS / total)
    moved, norm = 0.0, 0.0
    for before, now in pairs:
        changed, whole = _squares(before, now, share)
        moved, norm = moved + changed, norm + whole
    return math.sqrt(moved / norm) if norm else None


def _squares(before: Stored, now: Stored, share: float) -> tuple[float, float]:
    """The sums of squares of change and start over the first rows of a tensor."""
    if not before.shape:
        start = before.read().double()
        return float((now.read().double() - start).square().sum()), float(start.square().sum())
    rows = math.ceil(before.shape[0] * share)
    changed = difference(now, before, 0, rows)
    return float(changed.double().square().sum()), float(before.read(0, rows).double().square().sum())
