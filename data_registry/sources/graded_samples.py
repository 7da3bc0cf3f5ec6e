"""Graded samples as a source of preference pairs: right answers of a model, chosen over wrong ones to a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord, Manifest, as_input, is_artifact
from data_registry.prepared import SAMPLES, load_prepared
from data_registry.sources.base import Chunk, Source, chunked
from data_registry.sources.pairing import GRADES, GradedAnswer, Pair, Pairing

if TYPE_CHECKING:
    import datasets

GRADE: Final = "grade"
_COLUMNS: Final = ("messages", "prompt_row", "finish", GRADE, "reference")
_GRADED: Final = "ogpsa sample MODEL --data DATA --answers 10 --temperature 0.7 --grade exact --out DIR"


class GradedSamples(Source):
    """The pairs of a model's graded answers, as rows ``prompt``, ``chosen``, ``rejected`` and ``reference``.

    Args:
        path: samples that ``ogpsa sample --grade`` made.
        pairs_per_prompt: most pairs of a prompt.
        seed: the seed of the draw of pairs.
        use_reference: whether the reference is chosen over the wrong answers to prompts without a right one.

    Attributes:
        account: the figures of :class:`PairCounts`, by name.

    Raises:
        InputError: there are no such samples, they were not graded, or no question gives a pair.
        ArtifactError: they do not verify.
    """

    def __init__(self, path: Path, *, pairs_per_prompt: int, seed: int, use_reference: bool) -> None:
        self.name = str(path)
        self._path = path
        self._manifest: Manifest
        self._rows, self._manifest = _graded(path)
        pairing = Pairing(pairs_per_prompt, seed, use_reference)
        self._pairs: list[Pair] = [
            pair for answers, reference in _questions(self._rows, path) for pair in pairing.pairs(answers, reference)
        ]
        self.account: dict[str, int] = asdict(pairing.counts)
        if not self._pairs:
            raise _without_pairs(self.name, self.account, use_reference)
        self.num_rows = len(self._pairs)
        self.task_hint = "preference"

    def chunks(self) -> Iterator[Chunk]:
        """See the base class."""
        yield from chunked(((number, self._row(pair)) for number, pair in enumerate(self._pairs, 1)), self.name, "pair")

    def inputs(self) -> list[InputRecord]:
        """See the base class."""
        return [as_input("source", self._path, self._manifest)]

    def _row(self, pair: Pair) -> dict[str, Any]:
        rejected = self._rows[pair.rejected]
        reference = rejected["reference"]
        gold = {"role": "assistant", "content": reference}
        chosen = gold if pair.chosen is None else self._rows[pair.chosen]["messages"][-1]
        prompt, answer = rejected["messages"][:-1], rejected["messages"][-1]
        return {"prompt": prompt, "chosen": [chosen], "rejected": [answer], "reference": reference}


def _graded(path: Path) -> tuple[datasets.Dataset, Manifest]:
    if not path.exists():
        raise InputError(f"'{path}' does not exist", fix=f"make graded samples:  {_GRADED}")
    if not is_artifact(path):
        raise InputError(
            f"'{path}' is no folder of samples, which --format samples reads", fix=f"make graded samples:  {_GRADED}"
        )
    rows, manifest = load_prepared(path)
    if manifest.kind != SAMPLES:
        raise InputError(
            f"'{path}' is a data set, and no samples, which --format samples reads",
            fix=f"let a model answer its prompts:  {_GRADED.replace('DATA', str(path), 1)}",
        )
    is_graded = set(_COLUMNS) <= set(rows.column_names)
    if not is_graded or len(rows) == 0 or all(grade is None for grade in rows[GRADE]):
        raise InputError(
            f"the samples '{path}' are not graded, so that right and wrong answers cannot be told apart",
            fix="make them again with --grade exact, number or refusal; the same command makes the same answers",
        )
    return rows.select_columns(list(_COLUMNS)), manifest


def _questions(rows: datasets.Dataset, path: Path) -> Iterator[tuple[list[GradedAnswer], str | None]]:
    """For each prompt, in order of first appearance, its answers and its reference."""
    for _, group in groupby(enumerate(rows), key=lambda numbered: numbered[1]["prompt_row"]):
        answers, reference = [], None
        for number, row in group:
            if row[GRADE] not in GRADES:
                raise InputError(
                    f"the grade of an answer is {row[GRADE]!r}, none of {', '.join(GRADES)}",
                    where=f"{path}, row {number + 1}",
                    fix="make the samples again with --grade",
                )
            text, reference = row["messages"][-1]["content"], row["reference"]
            answers.append(GradedAnswer(number, text, row[GRADE], row["finish"] == "length"))
        yield answers, reference


def _without_pairs(name: str, account: dict[str, int], use_reference: bool) -> InputError:
    gold = "" if use_reference else "; or take the data's own answers as chosen:  --missing gold"
    cut = f"; {account['right_cut_off']} right answers were cut off" if account["right_cut_off"] else ""
    return InputError(
        f"no question of '{name}' has a right and a wrong answer: of {account['questions']}, {account['only_right']} "
        f"have only right answers, {account['only_wrong']} only wrong ones and {account['neither']} neither{cut}",
        fix=f"sample more answers to each, at a higher temperature (--answers 10 --temperature 1){gold}",
    )
