"""Packed bits: bit j of byte i is element 8 i + j of the flattened tensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]

_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1).astype(np.int64)


def num_bytes(num_bits: int) -> int:
    """How many bytes so many bits take."""
    return -(-num_bits // 8)


def count(packed: Bytes) -> int:
    """The number of bits that are set."""
    return int(_ONES[packed].sum())


def unpack(packed: Bytes, skip: int, num_bits: int) -> Flags:
    """Bits ``skip`` to ``skip + num_bits`` of some bytes; ``[num_bits]`` bool."""
    return np.unpackbits(packed, bitorder="little", count=skip + num_bits)[skip:].view(np.bool_)


class Packer:
    """Packs bits that come in runs of any length; a byte is given out once it is full."""

    def __init__(self) -> None:
        self._rest: Flags = np.zeros(0, dtype=np.bool_)

    def add(self, flags: Flags) -> Bytes:
        """The bytes that the next bits fill."""
        if len(self._rest):
            flags = np.concatenate([self._rest, flags])
        whole = len(flags) - len(flags) % 8
        self._rest = flags[whole:].copy()
        return np.packbits(flags[:whole], bitorder="little")

    def finish(self) -> Bytes:
        """The last byte, filled with zeros, if there is one that is not full."""
        last = np.packbits(self._rest, bitorder="little")
        self._rest = self._rest[:0]
        return last
