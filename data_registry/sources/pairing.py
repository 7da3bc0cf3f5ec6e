"""Right and wrong answers to the same question put together: which pairs there are, and which of them are drawn."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

RIGHT: Final = "right"
WRONG: Final = "wrong"
UNSURE: Final = "unsure"
GRADES: Final = (RIGHT, WRONG, UNSURE)
"""What an answer may turn out to be. An unsure one, of which the judge could not tell, is used for nothing."""


@dataclass(frozen=True)
class GradedAnswer:
    """One graded answer to a question.

    Attributes:
        row: the number of its row among the samples.
        text: the answer.
        grade: one of ``GRADES``.
        is_cut: whether it was cut off at the length limit.
    """

    row: int
    text: str
    grade: str
    is_cut: bool = False


@dataclass(frozen=True)
class Pair:
    """A right and a wrong answer to one question.

    Attributes:
        chosen: the row of the right answer; None where the reference stands in for it.
        rejected: the row of the wrong answer.
    """

    chosen: int | None
    rejected: int


@dataclass
class PairCounts:
    """What became of questions and of their answers.

    Attributes:
        questions: questions that have an answer.
        with_pairs: those with right and wrong answers, which give pairs.
        only_right: those without a wrong answer, which give none.
        only_wrong: those without a right answer that could be chosen.
        neither: those without any answer that could be used.
        with_reference: those of ``only_wrong`` that give pairs all the same, with the reference as the chosen answer.
        duplicates: answers left out because the same question had the same answer before.
        cut_off: answers cut off at the length limit; the right ones among them are never chosen.
        right_cut_off: right answers that were left out for this reason.
        unsure: answers of which the judge could not tell.
    """

    questions: int = 0
    with_pairs: int = 0
    only_right: int = 0
    only_wrong: int = 0
    neither: int = 0
    with_reference: int = 0
    duplicates: int = 0
    cut_off: int = 0
    right_cut_off: int = 0
    unsure: int = 0


QUESTIONS: Final[Mapping[str, str]] = {
    "with_pairs": "with right and wrong answers",
    "only_right": "with only right ones",
    "only_wrong": "with only wrong ones",
    "neither": "without any that could be used",
}
"""The kinds of questions that :class:`PairCounts` counts, in words; each question is of one of them."""


@dataclass
class Pairing:
    """Draws the pairs of questions one after another.

    Of each question all combinations of a right and a wrong answer are formed, right answers in the outer loop, and
    ``most`` of them, or as many as there are, are drawn without replacement by one generator for all questions. Where a
    data set is graded alike, that gives the pairs of ALLO's release (RUCAIBox/ALLO, gen_improving_data), which takes a
    seed of 42 and at most 5 pairs, and does not know where an answer was cut off.

    Attributes:
        most: most pairs of a question.
        seed: the seed of the draw.
        use_reference: whether the reference is paired with the wrong answers to questions without a right one.
        counts: what became of the questions so far.
    """

    most: int
    seed: int
    use_reference: bool = False
    counts: PairCounts = field(default_factory=PairCounts)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def pairs(self, answers: Iterable[GradedAnswer], reference: str | None = None) -> list[Pair]:
        """The pairs of the next question.

        Args:
            answers: all graded answers to it, in order.
            reference: the right solution that comes with the data; None where there is none.
        """
        counts = self.counts
        right, wrong = self._usable(answers)
        counts.questions += 1
        counts.with_pairs += bool(right and wrong)
        counts.only_right += bool(right and not wrong)
        counts.only_wrong += bool(wrong and not right)
        counts.neither += not right and not wrong
        chosen: Sequence[int | None] = [answer.row for answer in right]
        if wrong and not right and self.use_reference and reference is not None:
            # What is compared as a whole may be wrong for lack of a phrase and still be the reference word for word.
            wrong = [answer for answer in wrong if answer.text.strip() != reference.strip()]
            chosen = [None]
            counts.with_reference += bool(wrong)
        combinations = [Pair(row, answer.row) for row in chosen for answer in wrong]
        return self._random.sample(combinations, min(self.most, len(combinations)))

    def _usable(self, answers: Iterable[GradedAnswer]) -> tuple[list[GradedAnswer], list[GradedAnswer]]:
        """The right and the wrong answers that may be used, each text once."""
        right: list[GradedAnswer] = []
        wrong: list[GradedAnswer] = []
        seen: set[str] = set()
        for answer in answers:
            self.counts.cut_off += answer.is_cut
            if answer.grade == UNSURE:
                self.counts.unsure += 1
            elif answer.grade == RIGHT and answer.is_cut:
                self.counts.right_cut_off += 1
            elif answer.text in seen:
                self.counts.duplicates += 1
            else:
                seen.add(answer.text)
                (right if answer.grade == RIGHT else wrong).append(answer)
        return right, wrong
