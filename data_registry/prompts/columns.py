"""Columns of a prompt set that no one named: what belongs to the request, and what contradicts the options."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from data_registry.core.errors import InputError
from data_registry.formats.layout import ASKED
from data_registry.formats.meanings import CONTEXT_NAMES, MEANINGS, Kind, is_ignored, normal
from data_registry.formats.prompt_sets import HARMFUL, HARMLESS, PromptLayout
from data_registry.formats.transcripts import is_transcript
from data_registry.values import says_something

logger = logging.getLogger(__name__)

_LABELS: Final = frozenset({"label", "prompt_label", "harm_label", "prompt_harm_label"})
_GROUPS: Final = {
    **dict.fromkeys(("safe", "harmless", "benign", "unharmful", "not harmful"), HARMLESS),
    **dict.fromkeys(("unsafe", "harmful", "toxic", "malicious"), HARMFUL),
}
# Kinds of meaning that are about answers, which prompts have none of.
_OF_ANSWERS: Final = frozenset({Kind.DESIRED, Kind.UNDESIRED, Kind.JUDGED, Kind.LEARNT, Kind.NUMBER})
_SHOWN: Final = 12


def context_column(row: Mapping[str, Any], layout: PromptLayout) -> str | None:
    """The column with a text before the request: the one that was named, or the one that formats take it from."""
    if layout.context is not None:
        return layout.context
    known = {name.lower() for name in ASKED["context"]}
    taken = {*layout.columns, *layout.ignore}
    return next((str(name) for name in row if str(name).lower() in known and name not in taken), None)


class PromptColumns:
    """Looks at the columns of the rows of a prompt set beside those that are used.

    Args:
        layout: how the rows are laid out.
        used: the columns that are used.
    """

    def __init__(self, layout: PromptLayout, used: set[str]) -> None:
        self._layout = layout
        self._known = {*used, *layout.columns, *layout.ignore}
        self._unused: Counter[str] = Counter()
        self._transcripts = 0

    def check(self, row: Mapping[str, Any], text: str, place: str) -> None:
        """Look at a row's other columns.

        Raises:
            InputError: one of them belongs to the request and would be lost, or says the contrary of the layout.
        """
        self._transcripts += is_transcript(text)
        for name, value in row.items():
            if name in self._known or not says_something(value) or value == text:
                continue
            plain = normal(str(name))
            self._check_label(plain, value, name, place)
            meaning = MEANINGS.get(plain)
            if meaning is not None and meaning.kind not in _OF_ANSWERS and not _is_answer(plain):
                fix = f"write the set into a suite file, with  layout: {{ignore: [{name}]}}  if it is not needed"
                if plain in CONTEXT_NAMES:
                    fix += f", or with  context: {name}"
                raise InputError(f"column '{name}' {meaning.says}, which would be lost", where=place, fix=fix)
            if not is_ignored(plain):
                self._unused[str(name)] += 1

    def say_unused(self, title: str) -> None:
        """Name what was not used, once."""
        if self._unused:
            named = [f"{name[:60]} ({count})" for name, count in self._unused.most_common(_SHOWN)]
            more = f" and {len(self._unused) - _SHOWN} more" if len(self._unused) > _SHOWN else ""
            logger.info("columns of '%s' that are not used: %s%s", title, ", ".join(named), more)
        if self._transcripts:
            logger.warning(
                "%d prompts of '%s' are transcripts with marks (Human:, Assistant:); each is asked as one message",
                self._transcripts,
                title,
            )

    def _check_label(self, plain: str, value: object, name: str, place: str) -> None:
        if self._layout.label is not None or plain not in _LABELS:
            return
        said = HARMFUL if self._layout.harmful else HARMLESS
        found = _GROUPS.get(str(value).strip().lower(), said)
        if found != said:
            raise InputError(
                f"column '{name}' has '{value}', where all prompts are said to be {said}",
                where=place,
                fix=f"write the set into a suite file, with  layout: {{label: {{column: {name}, harmful: [...], "
                f"harmless: [...]}}}},  or with  ignore: [{name}]",
            )


def _is_answer(plain: str) -> bool:
    """Whether a column of this normal name holds answers or says which is better."""
    return MEANINGS[plain] in (MEANINGS["rejected"], MEANINGS["winner"])
