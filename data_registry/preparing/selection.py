"""Which rows are kept: no duplicates, and a draw that depends on contents and seed alone."""

from __future__ import annotations

import hashlib
import heapq


class Duplicates:
    """Recognises rows that came before. Holds 8 bytes of each row's hash, some 80 bytes of memory a row."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def is_new(self, digest: bytes) -> bool:
        """Whether no row with this content hash was asked for before."""
        key = int.from_bytes(digest[:8], "big")
        if key in self._seen:
            return False
        self._seen.add(key)
        return True


class Draw:
    """A uniform draw of ``size`` rows from a stream.

    Every row has a place in an order that its content and the seed determine, and the first ``size`` of that order are
    drawn: the same rows whatever the order of the source and the number of workers.

    Args:
        size: rows to draw.
        seed: of the order.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._key = str(seed).encode()
        self._heap: list[tuple[int, int]] = []
        self._offered = 0

    def admit(self, digest: bytes) -> bool:
        """Whether a row is among the first so far; if so it has to be kept, and is numbered from 0 in this order."""
        place = hashlib.blake2b(digest, digest_size=8, key=self._key, person=b"ogpsa draw").digest()
        entry = (-int.from_bytes(place, "big"), self._offered)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif entry[0] > self._heap[0][0]:
            heapq.heapreplace(self._heap, entry)
        else:
            return False
        self._offered += 1
        return True

    def drawn(self) -> list[int]:
        """The numbers of the rows that are drawn, ascending: in the order of the source."""
        return sorted(number for _, number in self._heap)
