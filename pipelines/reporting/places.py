"""Paths as a page shows them: relative to the work that it is about, and never those of the machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

ELSEWHERE: Final = "\N{HORIZONTAL ELLIPSIS}"
_KEPT: Final = 2
# Absolute paths of two names or more; neither the second half of a URL nor a fraction. A name ends where a text would.
_ABSOLUTE: Final = re.compile(
    r"(?<![\w./~:\N{HORIZONTAL ELLIPSIS}-])(?:file://)?(/(?:[^\s/'\":;,=()<>|]+/)+[^\s/'\":;,=()<>|]*)"
)


class Places:
    """The folder that paths are relative to: the deepest one that holds all results and the report.

    Args:
        results: where the results lie.
        out: where the report will lie.
    """

    def __init__(self, results: Iterable[Path], out: Path) -> None:
        places = [os.path.abspath(path) for path in results] + [os.path.dirname(os.path.abspath(out))]
        common = os.path.commonpath(places)
        # The root of everything, or of everybody's folders, is no place of this work.
        self._base = Path(common) if len(Path(common).parts) > 2 else None

    def path(self, text: str) -> str:
        """A path; one that is relative already, or none, is left as it is."""
        if not text.startswith("/"):
            return text
        place = PurePosixPath(os.path.normpath(text))
        if self._base is not None and place.is_relative_to(self._base):
            return str(place.relative_to(self._base))
        return "/".join([ELSEWHERE, *place.parts[1:][-_KEPT:]])

    def text(self, text: str) -> str:
        """A text with the absolute paths in it replaced."""
        return _ABSOLUTE.sub(lambda found: self.path(found.group(1)), text)

    def words(self, arguments: Sequence[str]) -> list[str]:
        """The words of a command: each of them may be a path, or ``NAME=PATH``, with blanks in it."""
        return [self._word(word) for word in arguments]

    def _word(self, word: str) -> str:
        name, sign, rest = word.partition("=")
        if word.startswith("/"):
            return self.path(word)
        return f"{name}={self.path(rest)}" if sign and rest.startswith("/") else self.text(word)
