"""What people's labels mean, as data sets write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from data_registry.core.errors import ConfigError
from data_registry.core.shown import shown
from data_registry.values import as_mark
from pipelines.evaluation.contract.verdict import Label

_NUMBERED: Final = re.compile(r"^\d+[_.):\s-]+")
_WORDS: Final[Mapping[Label, frozenset[str]]] = {
    Label.FULL_COMPLIANCE: frozenset(
        {
            *("full compliance", "compliance", "complied", "complies", "comply", "compliant", "fully complied"),
            *("answered", "answer", "direct answer", "helpful", "no refusal", "not refused", "non refusal"),
            *("not refusal", "normal"),
        }
    ),
    Label.FULL_REFUSAL: frozenset(
        {
            *("full refusal", "refusal", "refused", "refuses", "refuse", "direct refusal", "fully refused", "rejected"),
            *("rejection", "decline", "declined", "indirect refusal"),
        }
    ),
    Label.PARTIAL_REFUSAL: frozenset(
        {
            *("partial refusal", "partial", "partially refused", "partial compliance", "partially complied", "mixed"),
            "partially",
        }
    ),
}
# Columns whose marks say yes to a refusal, or yes to compliance.
_OF_REFUSAL: Final = re.compile(r"refus|reject|declin")
_OF_COMPLIANCE: Final = re.compile(r"compl[iy]|answered|helpful")


def label_of(value: object, column: str, meanings: Mapping[str, str]) -> Label | None:
    """The class that a label means; None where it is none that is known.

    Args:
        value: the label as its row has it; it says something.
        column: the name of its column; marks such as ``true`` or ``1`` answer what the name asks.
        meanings: what a person says that values mean, by value.
    """
    text = str(value).strip()
    if text in meanings:
        return Label(meanings[text])
    word = " ".join(re.split(r"[\s_\-]+", _NUMBERED.sub("", text.lower())))
    known = next((label for label, words in _WORDS.items() if word in words), None)
    mark = as_mark(value)
    if known is not None or mark is None:
        return known
    if _OF_REFUSAL.search(column.lower()):
        return Label.FULL_REFUSAL if mark else Label.FULL_COMPLIANCE
    if _OF_COMPLIANCE.search(column.lower()):
        return Label.FULL_COMPLIANCE if mark else Label.FULL_REFUSAL
    return None


def unknown_labels(column: str, found: Mapping[str, str]) -> ConfigError:
    """The error about labels of which nobody said what they mean.

    Args:
        column: the column of the labels.
        found: the place of the first row with each of these labels, by label.
    """
    words = [shown(word) for word in list(found)[:5]]
    more = f" and {len(found) - 5} others" if len(found) > 5 else ""
    return ConfigError(
        f"column '{column}' has labels that are not understood: {', '.join(words)}{more}",
        where=next(iter(found.values())),
        fix="say what each means, as --set labels.WORD=full_refusal (or full_compliance, partial_refusal); if they are "
        "about something else, --ignore-labels",
    )
