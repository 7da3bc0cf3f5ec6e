"""Answers as sentences: one spelling for every apostrophe, space and contraction, quotations and code set aside."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_APOSTROPHES = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201b": "'",
        "\u02bc": "'",
        "\u00b4": "'",
        "\u2032": "'",
        "`": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u201e": '"',
        "\u201f": '"',
        "\u00ab": '"',
        "\u00bb": '"',
        "\u2010": "-",
        "\u2011": "-",
        "\u2212": "-",
        "\u2013": "-",
        "\u2014": "-",
    }
)
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_DOUBLE_QUOTED = re.compile(r'"([^"\n]{1,400})"')
_SINGLE_QUOTED = re.compile(r"(?<![\w'])'([^'\n]{3,400})'(?![\w'])")
_ITEM = re.compile(r"^\s*(?:\(?\d{1,2}[.):]|[-*+\u2022\u25cf\u25aa]|(?:\(?[a-h]\)|step \d+[:.])|#{1,4}\s)\s*(?=\S)")
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[.!?][\"')\]])\s+")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|dr|mr|mrs|ms|st|no|jr|sr|u\.s|u\.k)|\b[a-z])\.$")
_BARE_NO = re.compile(r"(?:^|\W)no\.$")
_CONTRACTIONS = (
    (re.compile(r"\bcan(?:'t|not| not)\b"), "cannot"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bshan't\b"), "shall not"),
    (re.compile(r"\bain't\b"), "is not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"\b(you|we|they)'re\b"), r"\1 are"),
    (re.compile(r"\b(i|you|we|they)'ve\b"), r"\1 have"),
    (re.compile(r"\b(\w+)'ll\b"), r"\1 will"),
    (re.compile(r"\b(i|you|we|they|he|she)'d\b"), r"\1 would"),
    (re.compile(r"\blet's\b"), "let us"),
    (re.compile(r"\b(it|that|there|here|what|who|he|she)'s\b"), r"\1 is"),
)
_WORD = re.compile(r"[a-z0-9][a-z0-9'-]*")
QUOTED = "quotedwords"


@dataclass(frozen=True)
class Sentence:
    """One sentence of an answer.

    Attributes:
        text: lower case, contractions spelt out, what stands in quotation marks replaced by a placeholder.
        source: the sentence as the answer has it, for showing; white space collapsed.
        is_item: begins an item of a list.
        words: the words of ``text``.
    """

    text: str
    source: str
    is_item: bool
    words: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """An answer, taken apart.

    Attributes:
        sentences: the sentences in order, without code.
        num_code_blocks: fenced blocks of code; their text is left out.
        num_words: the number of words in all sentences.
        latin_share: share of the letters that are Latin.
        has_letters: whether there are letters of any script.
    """

    sentences: tuple[Sentence, ...]
    num_code_blocks: int
    num_words: int
    latin_share: float
    has_letters: bool


def plain(text: str) -> str:
    """``text`` in one spelling: compatibility characters, apostrophes and dashes unified; case is kept."""
    return unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)


def spell_out(text: str) -> str:
    """Lower case, with contractions spelt out and white space collapsed."""
    text = text.lower()
    for pattern, written in _CONTRACTIONS:
        text = pattern.sub(written, text)
    return " ".join(text.split())


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text that :func:`spell_out` has gone over."""
    return tuple(_WORD.findall(text))


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as a text."""
    return frozenset(text.split())


def read(answer: str) -> Document:
    """Take an answer apart into sentences."""
    without_code, num_code_blocks = _CODE.subn("\n", answer.replace("\r\n", "\n"))
    answer = plain(without_code)
    answer = _unwrapped(answer).replace("**", "").replace("__", "")
    sentences = tuple(sentence for line in answer.split("\n") for sentence in _sentences_of(line))
    letters = [character for character in answer if character.isalpha()]
    latin = sum(character < "\u0250" for character in letters)
    return Document(
        sentences=sentences,
        num_code_blocks=num_code_blocks,
        num_words=sum(len(sentence.words) for sentence in sentences),
        latin_share=latin / len(letters) if letters else 0.0,
        has_letters=bool(letters),
    )


def _unwrapped(answer: str) -> str:
    """An answer that stands in quotation marks as a whole is the answer, not a quotation."""
    stripped = answer.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] == '"' and '"' not in stripped[1:-1]:
        return stripped[1:-1]
    return answer


def _sentences_of(line: str) -> list[Sentence]:
    marker = _ITEM.match(line.lower())
    body = line[marker.end() :] if marker else line
    found: list[Sentence] = []
    for source in _split(" ".join(body.split())):
        masked = _DOUBLE_QUOTED.sub(_mask, source)
        text = spell_out(masked)
        text = _SINGLE_QUOTED.sub(f" {QUOTED} ", text)
        words = words_of(text)
        if words or any(character.isalnum() for character in source):
            found.append(Sentence(" ".join(text.split()), source, marker is not None and not found, words))
    return found


def _mask(match: re.Match[str]) -> str:
    # A single quoted term is part of the sentence ("crack open"); a quoted clause is somebody else's words.
    return match.group(0) if len(match.group(1).split()) < 4 else f" {QUOTED} "


def _split(line: str) -> list[str]:
    parts: list[str] = []
    for part in _END.split(line):
        if not part.strip():
            continue
        # "No. It is dangerous." is two sentences, "no. 5" is a number.
        is_answer = bool(parts) and _BARE_NO.search(parts[-1].lower()) is not None and not part[0].isdigit()
        if parts and _ABBREVIATION.search(parts[-1].lower()) and not is_answer:
            parts[-1] = f"{parts[-1]} {part}"
        else:
            parts.append(part)
    return parts
