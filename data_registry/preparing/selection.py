"""Which rows are kept, and what becomes of the others: duplicates, the draw, counts, and the file of rejected rows."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from data_registry.core.errors import InputError
from data_registry.preparing.reading import Outcome, Rejection
from data_registry.schema import FILTERED, NOT_DROPPED, UNDESIRED

if TYPE_CHECKING:
    import pyarrow as pa

REJECTED: Final = "rejected.jsonl"
# Rows of which not one is usable are of another kind than the options say: the rest need not be read.
_HOPELESS_AFTER: Final = 5000
_MAX_NAMES: Final = 200
_NAME_CHARACTERS: Final = 200
OTHER_NAMES: Final = "others"
"""Stands for columns that are not used, beyond the first two hundred."""


@dataclass
class Counts:
    """What became of the rows.

    Attributes:
        read: rows that the source has.
        kept: rows of the result.
        dropped: unusable rows by reason; these count against ``--max-dropped``.
        duplicates: rows that came before.
        filtered: rows taken out by a filter on a column.
        other_split: rows of the other part (``--split``).
        not_drawn: usable rows that were not drawn (``--num-samples``).
        cut: usable rows of which ``--max-length`` cuts something off.
        undesired: rows left out because they are marked as answers that must not be learnt.
    """

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    filtered: int = 0
    other_split: int = 0
    not_drawn: int = 0
    cut: int = 0
    undesired: int = 0

    @property
    def num_dropped(self) -> int:
        """Unusable rows for all reasons."""
        return sum(self.dropped.values())


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
        seed: the seed that the drawn order follows from.
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


class Selection:
    """Counts what becomes of rows, and sorts out duplicates and rows that cannot be drawn any more.

    Attributes:
        counts: what became of the rows.
        usable: rows that could be kept.
        unused: columns and keys that no one uses, with the number of rows that have a value there.
        ignored: names that were to be ignored and are there.
    """

    def __init__(self, draw: Draw | None) -> None:
        self.counts = Counts()
        self.unused: Counter[str] = Counter()
        self.ignored: set[str] = set()
        self.usable = 0
        self._draw = draw
        self._duplicates = Duplicates()

    def select(self, outcome: Outcome) -> tuple[pa.RecordBatch, list[Rejection]]:
        """The rows of a chunk to keep for now, and those to be recorded as left out: unusable ones and duplicates."""
        import pyarrow as pa

        counts = self.counts
        counts.read += outcome.num_read
        counts.filtered += outcome.counts[FILTERED]
        counts.other_split += outcome.counts["other_split"]
        counts.cut += outcome.counts["cut"]
        for reason, number in Counter(rejection.reason for rejection in outcome.rejected).items():
            if reason == UNDESIRED:
                counts.undesired += number
            else:
                counts.dropped[reason] = counts.dropped.get(reason, 0) + number
        self._count_names(outcome)
        keep, duplicates = [], []
        for index, (digest, number) in enumerate(zip(outcome.hashes, outcome.numbers, strict=True)):
            new = self._duplicates.is_new(digest)
            if not new:
                row = outcome.rows.slice(index, 1).to_pylist()[0]
                duplicates.append(outcome.duplicate(number, row))
            keep.append(new and (self._draw is None or self._draw.admit(digest)))
            self.usable += new
        counts.duplicates += len(duplicates)
        return outcome.rows.filter(pa.array(keep, pa.bool_())), [*outcome.rejected, *duplicates]

    def _count_names(self, outcome: Outcome) -> None:
        self.ignored |= outcome.ignored
        for full_name, number in outcome.unused.items():
            # A name of JSON may hold half of a surrogate pair, which no file can.
            name = full_name[:_NAME_CHARACTERS].encode("utf-8", "backslashreplace").decode()
            known = name in self.unused or len(self.unused) < _MAX_NAMES
            self.unused[name if known else OTHER_NAMES] += number

    @property
    def is_hopeless(self) -> bool:
        """Whether many rows were read and not one is usable."""
        return self.counts.read >= _HOPELESS_AFTER and self.counts.num_dropped == self.counts.read

    def judge(self, name: str, max_dropped: float, examples: Mapping[str, str]) -> None:
        """Fail where nothing is left, or more was dropped than allowed.

        Args:
            name: the source's.
            max_dropped: the share of unusable rows that is allowed.
            examples: a place and detail for each reason, for the message.

        Raises:
            InputError: too many rows are dropped; the error gives the counts.
        """
        counts = self.counts
        reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(counts.dropped.items()))
        where = "\n         ".join(f"{reason}: {example}" for reason, example in sorted(examples.items())) or name
        if counts.num_dropped > max_dropped * counts.read:
            raise InputError(
                f"{counts.num_dropped} of {counts.read} rows of '{name}' cannot be used ({reasons}), more than "
                f"--max-dropped {max_dropped:g} allows",
                where=where,
                fix="correct the rows or the options; or allow more with --max-dropped, "
                f"and see each of them in {REJECTED} of the result",
            )
        if self.usable == 0:
            others = {
                "filtered": counts.filtered,
                "of the other part of --split": counts.other_split,
                "marked as not to be learnt": counts.undesired,
            }
            told = [reasons, *(f"{number} {what}" for what, number in others.items() if number)]
            raise InputError(
                f"'{name}' has no usable row: of {counts.read} read, {', '.join(filter(None, told)) or 'none'}",
                where=where,
            )


class RejectedFile:
    """A file of rejected rows, one JSON object a line.

    Attributes:
        examples: the first place and detail of each reason.
    """

    def __init__(self, path: Path) -> None:
        self.examples: dict[str, str] = {}
        # Half of a surrogate pair is written as JSON writes it, by its number.
        self._stream = path.open("w", encoding="utf-8", errors="backslashreplace")

    def __enter__(self) -> RejectedFile:
        return self

    def write(self, rejection: Rejection) -> None:
        """Append a row."""
        if rejection.reason not in NOT_DROPPED:
            self.examples.setdefault(rejection.reason, f"{rejection.place}: {rejection.detail}")
        line = {
            "number": rejection.number,
            "where": rejection.place,
            "reason": rejection.reason,
            "detail": rejection.detail,
            "row": rejection.excerpt,
        }
        self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def __exit__(self, *_: object) -> None:
        self._stream.close()
