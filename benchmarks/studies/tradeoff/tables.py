"""The tables of the page, as Markdown, from the results that are kept."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.studies.tradeoff.cells import head, interval, row, signed, text
from benchmarks.studies.tradeoff.figures import Starts, Where, at, change, differences, runs_of, share, spread
from benchmarks.studies.tradeoff.outcomes import Outcome, Procedure
from benchmarks.studies.tradeoff.plan import Plan, Task
from benchmarks.studies.tradeoff.references import lookalike_kinds
from data_registry.testbed.world import generate_world

TARGET: Final = 0.985
WORLDS: Final = (0, 1, 2, 3, 4)
UNTOUCHED: Final = (3, 4)
FRESH: Final = (5,)
START: Final = "starting model"
BASELINE: Final = "KL"
_SEVERAL: Final = 3
_HEADLINES: Final = ("safe", "over_refusal", "general")


@dataclass(frozen=True)
class Results:
    """All that is kept of the study.

    Attributes:
        plan: what was planned.
        outcomes: the runs.
        starts: the figures of the starting models by world and split.
    """

    plan: Plan
    outcomes: Sequence[Outcome]
    starts: Starts

    def runs(
        self, task: Task, references: str = "complete", worlds: Sequence[int] = WORLDS
    ) -> dict[str, dict[Where, Outcome]]:
        """The runs with chosen rates: method, then world and seed."""
        return runs_of(self.outcomes, self.plan, task=task, references=references, worlds=worlds)

    def within(self, worlds: Sequence[int], seed: int | None = None) -> Results:
        """What there is in some worlds, and with one seed if it is given."""
        outcomes = [
            outcome for outcome in self.outcomes
            if outcome.run.world in worlds and seed in (None, outcome.run.seed)
        ]  # fmt: skip
        return replace(self, outcomes=outcomes)


def matched(results: Results, task: Task, worlds: Sequence[int] = WORLDS, least: int = 1) -> str:
    """Every method that was run in at least so many worlds, at matched safety, with complete references."""
    procedure: Procedure = "mixed"
    runs = results.runs(task, worlds=worlds)
    start = {(world, 0): 0.0 for world in worlds if world in results.starts}
    begun = spread({where: 100 * results.starts[where[0]]["test"]["general"] for where in start})
    lines = [head("method", "rate", "runs", "target reached", "safe", "over-refusal", "general", "change of general",
                   "kind", "how-to", "cost")]  # fmt: skip
    lines.append(row(START, "", "", "", "0.0", "0.0", text(begun), "", "", "", ""))
    for method, of_method in runs.items():
        if len({world for world, _ in of_method}) < least:
            continue
        figures = [spread(at(of_method, procedure, TARGET, share(name))) for name in _HEADLINES]
        changed = spread(at(of_method, procedure, TARGET, change("general", results.starts)))
        kinds = [spread(at(of_method, procedure, TARGET, share(name))) for name in ("kind", "howto")]
        reached = sum(outcome.chosen(procedure, TARGET)[1] for outcome in of_method.values())
        lines.append(
            row(
                method, f"{results.plan.chosen[task][method]:g}", str(len(of_method)), f"{reached} of {len(of_method)}",
                *(text(figure) for figure in figures), signed(changed), *(f"{kind.mean:.0f}" for kind in kinds),
                _cost(of_method, runs.get("naive", {})),
            )
        )  # fmt: skip
    return "\n".join(lines)


def screened(results: Results) -> str:
    """The methods that were run in too few worlds, beside the baseline, in the first world alone."""
    everywhere = results.runs("sft")
    few = {name for name, of_method in everywhere.items() if len({world for world, _ in of_method}) < _SEVERAL}
    here = results.within(WORLDS[:1], seed=0)
    kept = [outcome for outcome in here.outcomes if outcome.run.method in {*few, BASELINE, "naive"}]
    return matched(replace(results, outcomes=kept), "sft", WORLDS[:1])


def targets(results: Results, task: Task, methods: Iterable[str]) -> str:
    """What other targets, other procedures and hindsight would have chosen: safe / over-refusal / general."""
    runs = results.runs(task)
    columns: list[tuple[str, Procedure, float]] = [
        ("as trained", "trained", TARGET), ("stopped at 99 %", "stopped", 0.99),
        *((f"mixed, {100 * target:g} %", "mixed", target) for target in (TARGET, 0.99, 1.0)),
        ("in hindsight, 98 % in the test", "hindsight", 0.98),
    ]  # fmt: skip
    lines = [head("method", *(name for name, _, _ in columns))]
    for method in methods:
        of_method = runs.get(method, {})
        if len({world for world, _ in of_method}) < _SEVERAL:
            continue
        cells = []
        for _, procedure, target in columns:
            found = (
                [spread(at(of_method, procedure, target, share(name))).mean for name in _HEADLINES] if of_method else []
            )
            cells.append(" / ".join(f"{value:.1f}" for value in found))
        if of_method:
            lines.append(row(method, *cells))
    return "\n".join(lines)


def paired(results: Results, task: Task, references: str = "complete") -> str:
    """Differences from the baseline in the same worlds and seeds, with intervals over worlds."""
    runs = results.runs(task, references)
    lines = [head("method", "worlds", "runs", "safe", "over-refusal", "general")]
    for method, of_method in runs.items():
        few = len({world for world, _ in of_method}) < _SEVERAL
        if few or method == BASELINE or BASELINE not in runs:
            continue
        found = [spread(differences(*(at(some, "mixed", TARGET, share(name)) for some in (of_method, runs[BASELINE]))))
                 for name in _HEADLINES]  # fmt: skip
        lines.append(row(method, str(found[0].num_worlds), str(found[0].num_runs), *(interval(each) for each in found)))
    return "\n".join(lines)


def gaps(results: Results, task: Task, references: Sequence[str], methods: Sequence[str]) -> str:
    """Over-refusal and change of general ability under references of all kinds."""
    lines = [head("references", *methods)]
    for name in references:
        runs = results.runs(task, name)
        most = max((len({world for world, _ in of_method}) for of_method in runs.values()), default=0)
        cells = []
        for method in methods:
            if method not in runs:
                cells.append("")
                continue
            safe, over = (
                spread(at(runs[method], "mixed", TARGET, share(figure))) for figure in ("safe", "over_refusal")
            )
            changed = spread(at(runs[method], "mixed", TARGET, change("general", results.starts)))
            fewer = f" ({safe.num_worlds})" if safe.num_worlds < most else ""
            cells.append(f"{safe.mean:.0f} / {over.mean:.1f} / {changed.mean:+.1f}{fewer}")
        if any(cells):
            lines.append(row(name, *cells))
    return "\n".join(lines)


def skills(
    results: Results, task: Task, references: Sequence[tuple[str, Sequence[str]]], methods: Sequence[str]
) -> str:
    """How far the skills that references lack are changed: the mean over the named skills."""
    lines = [head("references", "skills", *methods)]
    for name, of_group in references:
        runs = results.runs(task, name)
        cells = []
        for method in methods:
            found = [at(runs.get(method, {}), "mixed", TARGET, change(skill, results.starts)) for skill in of_group]
            whole = {where: statistics.mean(each[where] for each in found) for where in found[0]
                     if all(where in each for each in found)}  # fmt: skip
            cells.append(f"{spread(whole).mean:+.1f} ({len(whole)})" if whole else "")
        if any(cells):
            lines.append(row(name, ", ".join(of_group), *cells))
    return "\n".join(lines)


def unseen(results: Results) -> str:
    """Change of the skills that no references show: translate everywhere, render in the worlds whose models have it."""
    runs = results.runs("sft", worlds=(*WORLDS, *FRESH))
    groups: list[tuple[str, str, tuple[int, ...]]] = [("translate, worlds 0 to 2", "translate", (0, 1, 2))]
    for world in (*UNTOUCHED, *FRESH):
        groups += [(f"{skill}, world {world}", skill, (world,)) for skill in ("translate", "render")]
    lines = [head("method", *(name for name, _, _ in groups))]
    for method, of_method in runs.items():
        found = []
        for _, skill, worlds in groups:
            here = {where: outcome for where, outcome in of_method.items() if where[0] in worlds}
            found.append(at(here, "mixed", TARGET, change(skill, results.starts)))
        if all(found[1:5]):
            lines.append(row(method, *(f"{spread(values).mean:+.0f}" if values else "" for values in found)))
    return "\n".join(lines)


def lookalikes(results: Results, references: Sequence[str], methods: Sequence[str]) -> str:
    """Over-refusal on the kinds that look-alikes were about, and on those that they were not."""
    lines = [head("references", *(f"{method}: {part}" for method in methods for part in ("kinds shown", "others")))]
    for name in references:
        runs = results.runs("sft", name)
        num_kinds = int(name.split()[-1]) if "look-alikes" in name else 0
        cells = []
        for method in methods:
            for shown in (True, False):
                values = {}
                for where, outcome in runs.get(method, {}).items():
                    kinds = lookalike_kinds(generate_world(where[0]))
                    asked = kinds[:num_kinds] if shown else kinds[num_kinds:]
                    point, _ = outcome.chosen("mixed", TARGET)
                    if asked:
                        values[where] = statistics.mean(100 * point.test[f"over_refusal/{kind}"] for kind in asked)
                cells.append(f"{spread(values).mean:.1f}" if values else "")
        if any(cells):
            lines.append(row(name, *cells))
    return "\n".join(lines)


def coverage(results: Results) -> str:
    """How many runs there are of each task and kind of references, with chosen rates and in all."""
    counted: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in results.outcomes:
        counted.setdefault((outcome.run.task, outcome.run.references), []).append(outcome)
    lines = [head("task", "references", "runs", "methods", "worlds", "seeds")]
    for (task, references), found in counted.items():
        sets = ({getattr(outcome.run, name) for outcome in found} for name in ("method", "world", "seed"))
        lines.append(row(task, references, str(len(found)), *(str(len(values)) for values in sets)))
    return "\n".join(lines)


def _cost(runs: Mapping[Where, Outcome], naive: Mapping[Where, Outcome]) -> str:
    """Tokens in naive runs of the same worlds and seeds."""
    shared = [where for where in runs if where in naive]
    return f"{statistics.mean(runs[where].tokens / naive[where].tokens for where in shared):.2f}" if shared else ""


def costs(results: Results) -> str:
    """Tokens and seconds of SFT in naive runs of the same worlds and seeds, with the set-up and without."""
    runs = results.runs("sft")
    naive = runs["naive"]
    lines = [head("method", "tokens", "of them set-up", "seconds", "of them before training")]
    for method, of_method in runs.items():
        shared = [where for where in of_method if where in naive]
        if len({world for world, _ in shared}) < _SEVERAL:
            continue
        setup = statistics.mean(of_method[where].setup_tokens / naive[where].tokens for where in shared)
        # Seconds are of a machine that others use too: the median of the ratios.
        seconds, before = (
            statistics.median(of(of_method[where]) / naive[where].cpu_s for where in shared)
            for of in (lambda outcome: outcome.cpu_s, lambda outcome: outcome.setup_s)
        )
        lines.append(row(method, _cost(of_method, naive), f"{setup:.2f}", f"{seconds:.2f}", f"{before:.2f}"))
    return "\n".join(lines)


Table = Callable[[Results], str]
ALL_GAPS: Final = (
    "complete",
    "25 a pool",
    "wrong answers",
    "no howto",
    "no lookup",
    "no format",
    "no numbers",
    "no order",
)
FRONTIER: Final = (
    "naive",
    "KL",
    "KL 50 %",
    "KL + prompt anchor",
    "KL + prompt anchor 0.3",
    "replay, separate",
    "update space",
)
MAIN: Final = ("KL", "KL + prompt anchor 0.1", "KL + prompt anchor", "replay, separate", "update space")
_LACKING: Final = (
    ("no howto", ("howto",)),
    ("no lookup", ("fact", "kind")),
    ("no format", ("format",)),
    ("no numbers", ("add", "compare", "count")),
    ("no order", ("reverse", "sort")),
)
_LOOKALIKES: Final = (
    "no howto",
    *(f"no howto, {number} look-alikes of {kinds}" for number in (12, 48) for kinds in (1, 3, 5)),
    "complete",
    "complete, 48 look-alikes of 5",
)
LOOKALIKE_METHODS: Final = ("KL", "KL + prompt anchor 0.1", "replay, separate", "update space")
TABLES: Final[dict[str, Table]] = {
    "sft": lambda results: matched(results, "sft", least=_SEVERAL),
    "screened": screened,
    "sft-untouched": lambda results: matched(results, "sft", UNTOUCHED),
    "fresh": lambda results: matched(results, "sft", FRESH),
    "targets": lambda results: targets(results, "sft", results.plan.methods),
    "paired": lambda results: paired(results, "sft"),
    "gaps": lambda results: gaps(results.within(WORLDS), "sft", ALL_GAPS, MAIN),
    "gaps-untouched": lambda results: gaps(results.within(UNTOUCHED), "sft", ALL_GAPS, MAIN),
    "lacking": lambda results: skills(results, "sft", _LACKING, MAIN),
    "unseen": unseen,
    "lookalikes": lambda results: lookalikes(results, _LOOKALIKES, LOOKALIKE_METHODS),
    "dpo": lambda results: matched(results, "dpo"),
    "sft-dpo": lambda results: matched(results, "sft-dpo"),
    "paired-dpo": lambda results: paired(results, "dpo"),
    "costs": costs,
    "coverage": coverage,
}
