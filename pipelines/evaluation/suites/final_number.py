r"""The number that an answer to a word problem gives as its result, however it is written.

Models write ``#### 42``, ``\boxed{\$1{,}234}``, ``**Answer:** 42 dollars`` or a sentence; with headings, bold, LaTeX,
and a minus sign of Unicode.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Final

_NUMBER: Final = (
    r"(?<![A-Za-z0-9.])-?(?:\\?[$€£¥₹]\s?)?-?"  # a sign before or behind a currency
    r"(?:(?:\d{1,3}(?:,\d{2,3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
)
# Of "5 + 3 = 8" the result counts.
_RESULT: Final = rf"(?:{_NUMBER}(?:\s*[-+*/\u00d7\u00f7]\s*{_NUMBER})+\s*=\s*)?({_NUMBER})"
# Bold, code, quotes, and the brackets of LaTeX.
_OPENING: Final = r"[\s*_`~\"'\u201c\u2018$\\()\[\]{}:=]{0,16}?"
# What may stand behind a result on its line: a unit or a remark in brackets. Not the title of a numbered step.
_UNIT: Final = r"(?![.):]*[.):]\s+\S|\s+[-:]\s)[^\d\n(]{0,40}(?:\([^\n]*)?$"
_MARKED: Final = re.compile(rf"(?m)(?<!#)####(?!#){_OPENING}{_RESULT}{_UNIT}")
_SAID: Final = re.compile(
    rf"(?im)\banswer\b[*_`\"'\u201d]*(?:\s+(?:to|for|of)\b[^.:=\n]{{0,80}}?)?"
    rf"(?:\s*(?:\bis\b|\bequals\b|[:=])|[*_`]*[ \t]*\n(?=[^\n]*\d)|(?=\s+{_NUMBER}[.*]*\s*$))"
    rf"(?:\s*(?:equal\s+to|approximately|about|therefore|thus|simply|just|only|exactly|then|now)\b)*"
    rf"{_OPENING}(?:\b[A-Za-z]\s{{0,2}}=)?\s{{0,2}}{_RESULT}"
)
_ANY: Final = re.compile(f"({_NUMBER})")
_BOXED: Final = re.compile(r"\\(?:boxed|fbox)\s*")
_MOST_BOXES: Final = 8
_FRACTION: Final = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_WORDS: Final = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
# Between groups of three digits: {,} and \, of LaTeX, an apostrophe, a thin or unbreakable space.
_GROUPING: Final = re.compile(r"(?<=\d)(?:\{,\}|\\[,!;:]|['\u2019\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
_MINUS: Final = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"))


def final_number(answer: str) -> Decimal | None:
    r"""The number that an answer gives as its result; None where it has none.

    That is the last one behind ``####``, in a ``\boxed{}``, or behind "answer is" or a heading "Answer"; otherwise the
    last number. A ``####`` that begins the heading of a numbered step is no mark.

    Args:
        answer: the text, with or without Markdown and LaTeX.
    """
    text = _plain(answer)
    marked = _MARKED.findall(text)
    if marked:
        return _value(marked[-1])
    boxed = _in_last_box(text)
    if boxed is not None:
        return boxed
    found = _SAID.findall(text) or _ANY.findall(text)
    return _value(found[-1]) if found else None


def _plain(answer: str) -> str:
    text = _GROUPING.sub("", answer.translate(_MINUS))
    return unicodedata.normalize("NFKC", text)


def _in_last_box(text: str) -> Decimal | None:
    r"""The number in the last ``\boxed{}`` that has one: in its braces, which may have others in them."""
    for found in list(_BOXED.finditer(text))[: -_MOST_BOXES - 1 : -1]:
        content = _braced(text, found.end())
        fraction = _FRACTION.fullmatch(content.strip(" $"))
        if fraction and int(fraction[2]):
            return Decimal(fraction[1]) / Decimal(fraction[2])
        # Words in it are units, unless the number stands in them.
        numbers = _ANY.findall(_WORDS.sub(" ", content)) or _ANY.findall(content)
        if numbers:
            return _value(numbers[-1])
    return None


def _braced(text: str, start: int) -> str:
    """What stands in the braces that open at a place; without braces, what stands there up to a space."""
    if text[start : start + 1] != "{":
        return text[start:].split(maxsplit=1)[0] if text[start:].strip() else ""
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + 1 : place]
    return text[start + 1 :]


def _value(number: str) -> Decimal:
    size = Decimal("".join(character for character in number if character.isdecimal() or character == "."))
    return -size if "-" in number else size
