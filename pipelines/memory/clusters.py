"""The smallest cluster whose devices hold a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

RANKS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
USABLE: Final = 0.94
"""The share of a device's memory that a run can use; the rest is the driver's, or lost between blocks."""


@dataclass(frozen=True)
class Cluster:
    """A number of devices, and how a run is spread over them.

    Attributes:
        ranks: the number of devices.
        options: the options that differ from those asked for, as they are typed.
    """

    ranks: int
    options: str = ""


def smallest_cluster(
    device_bytes: Callable[[int, str], float], memory_bytes: float, ways: tuple[str, ...]
) -> Cluster | None:
    """The smallest cluster that holds a run, in the way that comes first; None where none does.

    Args:
        device_bytes: what a device holds, by the number of ranks and the way.
        memory_bytes: the memory of a device.
        ways: options that differ from those asked for; the first is usually empty, for none.
    """
    for ranks in RANKS:
        for way in ways:
            if device_bytes(ranks, way) <= USABLE * memory_bytes:
                return Cluster(ranks, way)
    return None
