"""The mark that stands for a value which a file has and Python cannot hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unreadable:
    """Stands in the place of one value, so that the other values of its row can be used.

    A row that needs the value is unreadable; a row whose format does not look at it is read as if nothing were wrong.

    Attributes:
        detail: what is wrong with the value.
    """

    detail: str

    def __str__(self) -> str:
        return f"({self.detail})"
