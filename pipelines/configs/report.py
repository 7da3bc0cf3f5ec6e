"""Options of ``ogpsa report``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import field_validator

from pipelines.configs.common import OutputConfig, seed_option
from pipelines.core.config import option

ALL, NONE = "all", "none"


class ReportConfig(OutputConfig):
    """Put results side by side: table, average gain, paired tests, charts, and one HTML page that holds them.

    Takes any number of results that evaluate wrote, judgements of judge, lm-eval's own result files, and
    directories that hold some. Results of one model under one name share a row.
    """

    examples: ClassVar[Sequence[str]] = (
        "ogpsa report results/base results/sft results/dpo --start results/base --out report",
        "ogpsa report results --start 'starting model' --out report          # every result in the directory",
        "ogpsa report base=lm_eval/base naive=results/sft --start base --out report",
        "ogpsa report results --start base --capability mmlu --capability gsm8k --safety xstest:safe --out report",
    )

    results: list[str] = option(
        ...,
        "Results of evaluate, judgements of judge, results_*.json of lm-eval, or directories that hold some; NAME=PATH "
        "names a run anew.",
        positional=True,
        runtime=True,
        min_length=1,
    )
    start: str | None = option(
        None,
        "The starting model that gains and paired tests are against: the name of a run, or the path of its results. "
        "By default none.",
    )
    capability: list[str] = option(
        [],
        "Figures that the average gain and the chart's horizontal axis are over, as SUITE:FIGURE or what names one "
        "alone. By default every main share of capability.",
        panel="Figures",
    )
    safety: list[str] = option(
        [],
        "Figures of the chart's vertical axis; those of which less is better are turned round. By default every main "
        "share of safety.",
        panel="Figures",
    )
    unlike: Literal["refuse", "apart"] = option(
        "refuse",
        "What to do with figures that were measured under other settings: refuse them, or apart: show them in columns "
        "of their own, never compared.",
        panel="Figures",
    )
    details: bool = option(False, "All figures, not the main ones alone.", panel="Figures")
    answers: str = option(
        "20000",
        "Answers to look at in the page: all, none, or at most so many in all (of items on which runs differ first). "
        "Samples from training are among them.",
        panel="Answers",
        off="none",
    )
    harmful_answers: Literal["covered", "shown", "left-out"] = option(
        "covered",
        "Answers to harmful prompts that were not refused: covered until the reader uncovers them, shown, or left-out "
        "of the page, which can then be handed on.",
        panel="Answers",
        needs="answers!=none",
        off="covered",
    )
    title: str = option("Safety and capability", "Heading of the page.", panel="Output")
    seed: int = seed_option(0, "Seed of the bootstrap.", needs="start")
    bootstrap: int = option(2000, "Resamples for the 95 % intervals of differences and gains.", needs="start", ge=100)

    @field_validator("answers", mode="before")
    @classmethod
    def _number_or_word(cls, given: object) -> str:
        # YAML makes a number of 500, and nothing of "none" but a text.
        text = str(given).strip()
        if text in (ALL, NONE):
            return text
        if not (text.isascii() and text.isdigit() and int(text[:12]) > 0):
            raise ValueError(f"must be {ALL}, {NONE} or a positive number, not '{text[:40]}'")
        return str(int(text[:12]))

    @property
    def most_answers(self) -> int | None:
        """How many answers the page may hold; None: all of them."""
        if self.answers == ALL:
            return None
        return 0 if self.answers == NONE else int(self.answers)
