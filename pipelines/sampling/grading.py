"""Samples graded by the answers that come with the data: what is compared of an answer, and whether it is right."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from data_registry.core.errors import InputError
from data_registry.sources.pairing import GRADES, RIGHT, UNSURE, WRONG
from pipelines.core.progress import Progress
from pipelines.evaluation.judges.refusal.judge import judge
from pipelines.evaluation.suites.final_number import final_number
from pipelines.samples.storage import Sample
from pipelines.sampling.prompts import Prompts

logger = logging.getLogger(__name__)

EXACT: Final = "exact"
NUMBER: Final = "number"
REFUSAL: Final = "refusal"
_EMPHASIS: Final = " *`"
_END: Final = re.compile(r"\s*[.\u3002]$")
_TOLD: Final = {
    "without_phrase": "do not have the phrase of --answer-after",
    "without_number": "have no number",
}


@dataclass(frozen=True)
class Extracted:
    """What is compared of an answer.

    Attributes:
        text: what is compared, as the samples store it; None where the answer does not have it.
        lacks: a key of the reasons why it does not have it; empty where it has.
        number: the number, for the grade ``number``.
    """

    text: str | None
    lacks: str = ""
    number: Decimal | None = None


class Grader:
    """Grades answers against references.

    Args:
        how: ``exact``, ``number`` or ``refusal``.
        after: what is compared is what stands behind the last occurrence of this phrase; None for the whole answer.
    """

    def __init__(self, how: str, after: str | None = None) -> None:
        self._how = how
        words = [] if after is None else after.split()
        self._after = re.compile(r"\s+".join(map(re.escape, words)), re.IGNORECASE) if words else None

    def extract(self, question: str, answer: str, *, whole: bool = False) -> Extracted:
        """What is compared of an answer.

        Args:
            question: the last message of the user.
            answer: the answer.
            whole: take the whole answer where it does not have the phrase, as of references: some data sets give the
                result alone.
        """
        if self._how == REFUSAL:
            verdict = judge(question, answer)
            return Extracted(UNSURE if verdict.unsure else verdict.label.value)
        found = [] if self._after is None else list(self._after.finditer(answer))
        if self._after is not None and not found and not whole:
            return Extracted(None, "without_phrase")
        rest = answer[found[-1].end() :] if found else answer
        if self._how == EXACT:
            return Extracted(normalised(_first_line(rest) if found else rest))
        # Behind the phrase the first number counts and not the last one, as behind the phrases that are known.
        number = final_number(f"The answer is {rest.lstrip(' :')}" if found else rest)
        return Extracted(None, "without_number") if number is None else Extracted(_plain(number), number=number)

    def grade(self, found: Extracted, expected: Extracted) -> str:
        """Whether an answer of which this is compared is right."""
        if self._how == REFUSAL and UNSURE in (found.text, expected.text):
            return UNSURE
        if self._how == NUMBER:
            return RIGHT if found.number is not None and found.number == expected.number else WRONG
        return RIGHT if found.text is not None and found.text == expected.text else WRONG


def normalised(text: str) -> str:
    """A text as it is compared: case, kinds of white space, emphasis around it and a full stop behind it do not count.

    Characters that Unicode holds to be the same are (NFKC).
    """
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return _END.sub("", plain.strip(_EMPHASIS)).strip(_EMPHASIS) or plain


def references_of(grader: Grader, how: str, prompts: Prompts, where: str) -> list[Extracted]:
    """What answers are compared with, for each prompt.

    Raises:
        InputError: the prompts have no references, or one does not have what is compared.
    """
    if prompts.references is None:
        raise InputError(
            f"'{where}' has prompts without answers, so that --grade {how} has nothing to grade by",
            fix="take a prepared data set, whose rows have answers; or leave --grade out",
        )
    expected = []
    for row, messages, reference in zip(prompts.rows, prompts.messages, prompts.references, strict=True):
        found = grader.extract(messages[-1]["content"], reference, whole=True)
        if not found.text:
            what = "number" if how == NUMBER else "text to compare with"
            raise InputError(
                f"the answer of row {row} of '{where}' has no {what}, and --grade {how} grades by it",
                where=f"{where}, row {row}",
                fix="leave such rows out when the data are prepared, or grade otherwise:  --grade exact",
            )
        expected.append(found)
    return expected


def graded(
    samples: Sequence[Sample], prompts: Prompts, how: str, after: str | None, where: str
) -> tuple[list[Sample], dict[str, Any]]:
    """The samples with their grades, and the figures for the summary.

    Args:
        samples: the answers.
        prompts: what was asked, with references.
        how: ``exact``, ``number`` or ``refusal``.
        after: the phrase behind which the result stands; None for the whole answer.
        where: the data set, for messages.

    Raises:
        InputError: a reference cannot be compared with.
    """
    grader = Grader(how, after)
    expected = dict(zip(prompts.rows, references_of(grader, how, prompts, where), strict=True))
    references = dict(zip(prompts.rows, prompts.references or (), strict=True))
    found, lacking = [], Counter[str]()
    with Progress("grading", total=len(samples), unit="answers") as progress:
        for sample in samples:
            extracted = grader.extract(sample.messages[-2]["content"], sample.messages[-1]["content"])
            lacking.update(filter(None, [extracted.lacks]))
            grade = grader.grade(extracted, expected[sample.prompt])
            reference = references[sample.prompt]
            found.append(replace(sample, extracted=extracted.text, grade=grade, reference=reference))
            progress.advance()
    for lacks, number in lacking.items():
        logger.warning("%d of %d answers %s, and are graded wrong", number, len(samples), _TOLD[lacks])
    if prompts.num_ambiguous:
        logger.warning(
            "%d prompts have several different answers in '%s'; answers are graded by the first of them",
            prompts.num_ambiguous, where,
        )  # fmt: skip
    settings = {"by": how, **({} if after is None else {"answer_after": after})}
    figures = {**settings, **_figures(found), **{lacks: lacking[lacks] for lacks in _TOLD if lacking[lacks]}}
    if prompts.num_ambiguous:
        figures["prompts_with_several_answers"] = prompts.num_ambiguous
    return found, figures


def _figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Counts of grades, and how many of the answers to a prompt are right, with the number of such prompts."""
    grades = Counter(sample.grade for sample in samples)
    right: Counter[int] = Counter()
    asked: Counter[int] = Counter()
    for sample in samples:
        asked[sample.prompt] += 1
        right[sample.prompt] += sample.grade == RIGHT
    shares = Counter((right[prompt], number) for prompt, number in asked.items())
    return {
        **{grade: grades[grade] for grade in GRADES if grade != UNSURE or grades[grade]},
        "cut_off_right": sum(sample.grade == RIGHT and sample.finish == "length" for sample in samples),
        "mean_share_right": sum(right[prompt] / number for prompt, number in asked.items()) / len(asked),
        "prompts_by_right_answers": {
            f"{count} of {number}": shares[count, number]
            for count, number in sorted(shares, key=lambda share: (share[1], share[0]))
        },
    }


def _first_line(text: str) -> str:
    """The first line with something in it, without a colon before it."""
    return next((line for line in text.lstrip(" \t:").splitlines() if line.strip(" *`:")), "").lstrip(" \t:")


def _plain(number: Decimal) -> str:
    written = f"{number:f}"
    return written.rstrip("0").rstrip(".") if "." in written else written
