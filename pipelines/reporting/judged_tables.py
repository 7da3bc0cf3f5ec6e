"""What judges found in answers made elsewhere: how far they agree with people, and with each other."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.judging.results import JudgeFigures, Share
from pipelines.reporting.runs import Run
from pipelines.reporting.tables import TextTable


def judged_table(runs: Sequence[Run]) -> TextTable:
    """A row for each judge of each judgement: outcomes, and agreement with people's labels."""
    rows = [
        (
            run.name, judge.judge, str(judge.num_judged), _counts(judge),
            str(judge.labels.num_items) if judge.labels else "-",
            _share(judge.labels.accuracy) if judge.labels else "-",
            _number(judge.labels.kappa) if judge.labels else "-",
            _recall(judge.labels.recall) if judge.labels else "-",
        )
        for run in runs
        for judgement in run.judgements
        for judge in judgement.judges
    ]  # fmt: skip
    headings = (
        "run", "judge", "answers", "outcomes", "labels", "agreement %", "kappa", "found of each label %",
    )  # fmt: skip
    return TextTable(headings, tuple(rows))


def judges_table(runs: Sequence[Run]) -> TextTable:
    """A row for every two judges of the same answers."""
    rows = [
        (run.name, pair.first, pair.second, _share(pair.agreement), _number(pair.kappa))
        for run in runs
        for judgement in run.judgements
        for pair in judgement.pairs
    ]
    return TextTable(("run", "judge", "other judge", "agreement %", "kappa"), tuple(rows))


def _recall(shares: Sequence[Share]) -> str:
    return "; ".join(f"{_plain(share.name)} {_share(share)}" for share in shares)


def _counts(judge: JudgeFigures) -> str:
    return ", ".join(f"{count} {_plain(outcome)}" for outcome, count in judge.counts.items())


def _share(share: Share) -> str:
    return f"{share.value * 100:.1f} [{share.low * 100:.1f}, {share.high * 100:.1f}]"


def _number(kappa: float | None) -> str:
    return "undefined" if kappa is None else f"{kappa:.3f}"


def _plain(name: str) -> str:
    return name.replace("_", " ")
