"""The tables of the page on masks, as Markdown, from the results that are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from benchmarks.studies.allo.pairing import Paired, paired
from benchmarks.studies.allo.results import START, WORLDS, Results
from benchmarks.studies.allo.tokens import ASKED, area_under_curve
from benchmarks.studies.tradeoff.cells import head, interval, row, text
from benchmarks.studies.tradeoff.figures import Spread, Where, at, share, spread
from benchmarks.studies.tradeoff.outcomes import Outcome, Point, Procedure
from benchmarks.studies.tradeoff.plan import Task

TARGET: Final = 0.985
"""The validation safety at which arms are compared."""
MAIN: Final = ("all", "top 10 %", "random 10 %")
SINGLE: Final = (*MAIN, "gradient 10 %", "least 10 %", "magnitude 10 %", "top 10 %, no embeddings")
RATIOS: Final = tuple(f"{choice} {ratio} %" for ratio in (1, 5, 30) for choice in ("top", "random"))
TOGETHER: Final = ("replay", "KL", "top 10 % + KL", "random 10 % + KL", "update space", "top 10 % + update space")
_RESAMPLES: Final = 300
HEADLINES: Final = ("safe", "over_refusal", "general")
_PAIRS: Final = (("top 10 %", "random 10 %"), ("top 10 %", "all"), ("random 10 %", "all"))
_PROCEDURES: Final[tuple[tuple[str, Procedure, float], ...]] = (
    ("as trained", "trained", TARGET), ("stopped at 95 %", "stopped", 0.95), ("stopped at 98.5 %", "stopped", 0.985),
    ("mixed, 95 %", "mixed", 0.95), ("mixed, 98.5 %", "mixed", 0.985),
)  # fmt: skip

_CHAINS: Final[dict[Task, str]] = {
    "dpo": "DPO", "dpo-long": "DPO, twice as long", "npo": "forgetting (NPO)", "npo-dpo": "forgetting, then DPO",
    "dpo-npo": "DPO, then forgetting", "dpo-pure": "DPO, sigmoid loss alone",
}  # fmt: skip
_TOKEN_TASKS: Final[dict[Task, str]] = {
    "tokens-npo": "forgetting (NPO)", "tokens-dpo": "DPO", "tokens-dpo-sft": "DPO, right answers too",
    "tokens-npo-dpo": "forgetting, then DPO, right answers too",
}  # fmt: skip

Table = Callable[[Results], str]


def arms(results: Results, task: Task, of: Sequence[str] = SINGLE) -> str:
    """Every arm with its chosen rate, at matched safety; figures are those of the runs that reach the target."""
    lines = [head("arm", "rate", "runs (worlds)", "target reached", "safe", "over-refusal", "general",
                  "norm of the change")]  # fmt: skip
    starts = results.starts(results.plan.tasks[task].start)
    begun = (spread({where: 100 * point.test[name] for where, point in starts.items()}) for name in HEADLINES)
    lines.append(row(START, "", f"{len(starts)} ({len({world for world, _ in starts})})", "", *map(text, begun), "0"))
    for arm, runs in results.runs(task).items():
        if arm not in of:
            continue
        reached = {where: outcome for where, outcome in runs.items() if outcome.chosen("mixed", TARGET)[1]}
        lines.append(row(
            arm, f"{results.plan.chosen[task][arm]:g}", f"{len(runs)} ({len({world for world, _ in runs})})",
            f"{len(reached)} of {len(runs)}",
            *_headlines(reached, "mixed"), f"{spread(at(reached, 'mixed', TARGET, _norm)).mean:.1f}" if reached else "",
        ))  # fmt: skip
    return "\n".join(lines)


def pairs(results: Results, task: Task, of: Sequence[tuple[str, str]] = _PAIRS) -> str:
    """Differences between arms at matched safety, where both reach the target."""
    runs = results.runs(task)
    lines = [head("difference", "worlds", "runs", *HEADLINES[1:], "safe")]
    for ours, theirs in of:
        found = [paired(runs.get(ours, {}), runs.get(theirs, {}), name, TARGET, results.clusters)
                 for name in (*HEADLINES[1:], "safe")]  # fmt: skip
        first = found[0]
        if first is not None:
            lines.append(row(
                f"{ours} less {theirs}", str(first.over_worlds.num_worlds), str(first.over_worlds.num_runs),
                *map(_paired, found),
            ))  # fmt: skip
    return "\n".join(lines)


def tuned(results: Results, task: Task, arms_of: Sequence[str] = SINGLE) -> str:
    """All rates that were tried, in the world that rates were chosen in: safe / over-refusal / general."""
    lines = [head("arm", "rate", "norm", "as trained", "norm at the target", "at the target")]
    for outcome in results.tried(task):
        if outcome.run.method not in arms_of:
            continue
        end, _ = outcome.chosen("trained", TARGET)
        point, reached = outcome.chosen("mixed", TARGET)
        chosen = "" if outcome.run.rate != results.plan.chosen.get(task, {}).get(outcome.run.method) else " *"
        lines.append(row(
            outcome.run.method, f"{outcome.run.rate:g}{chosen}", _number(end.norm), _shares(end),
            *((_number(point.norm), _shares(point)) if reached else ("", "not reached")),
        ))  # fmt: skip
    return "\n".join(lines)


def controls(results: Results, task: Task, of: Sequence[str] = MAIN) -> str:
    """What stopping early, mixing back and hindsight give arms: safe / over-refusal / general."""
    runs = results.runs(task)
    lines = [head("arm", *(name for name, _, _ in _PROCEDURES))]
    for arm in of:
        if arm in runs:
            cells = (" / ".join(f"{spread(at(runs[arm], procedure, target, share(name))).mean:.1f}"
                                for name in HEADLINES) for _, procedure, target in _PROCEDURES)  # fmt: skip
            lines.append(row(arm, *cells))
    return "\n".join(lines)


def checks(results: Results) -> str:
    """What the masked runs said of themselves, over all of them."""
    lines = [head("mask", "runs", "share trained", "frozen weights to the bit", "trained weights that moved")]
    found: dict[str, list[Mapping[str, float]]] = {}
    for outcome in results.outcomes:
        if "frozen_identical" in outcome.left:
            found.setdefault(outcome.run.method, []).append(outcome.left)
    for method in results.plan.methods:
        left = found.get(method, [])
        if left:
            shares = [each["trained_weights"] / (each["trained_weights"] + each["frozen_weights"]) for each in left]
            same = sum(each["frozen_identical"] == 1.0 for each in left)
            lines.append(row(method, str(len(left)), f"{100 * max(shares):.2f} %", f"{same} of {len(left)}",
                             f"at least {100 * min(each['moved_share'] for each in left):.2f} %"))  # fmt: skip
    return "\n".join(lines)


def chains(results: Results) -> str:
    """Forgetting and DPO in all orders, in the world that all were run in: as trained, and at matched safety."""
    lines = [head("training", "weights", "rate", "steps", "as trained", "at the target")]
    for task, name in _CHAINS.items():
        for outcome in results.tried(task):
            # Those of DPO with masks are in a table of their own.
            if task == "dpo" and outcome.run.method != "all":
                continue
            end, _ = outcome.chosen("trained", TARGET)
            point, reached = outcome.chosen("mixed", TARGET)
            lines.append(row(name, outcome.run.method, f"{outcome.run.rate:g}", str(outcome.run.steps), _shares(end),
                             _shares(point) if reached else "not reached"))  # fmt: skip
    return "\n".join(lines)


def chain_pairs(results: Results) -> str:
    """Differences between forgetting before DPO and DPO alone, in all worlds."""
    alone = results.runs("dpo").get("all", {})
    lines = [head("difference", "worlds", "target reached", *HEADLINES[1:], "safe")]
    for task in ("npo-dpo", "dpo-npo", "dpo-long"):
        runs = results.runs(task).get("all", {})
        reached = sum(outcome.chosen("mixed", TARGET)[1] for outcome in runs.values())
        found = [paired(runs, alone, name, TARGET, results.clusters) for name in (*HEADLINES[1:], "safe")]
        first = found[0]
        worlds = "0" if first is None else str(first.over_worlds.num_worlds)
        lines.append(row(f"{_CHAINS[task]}, less DPO", worlds, f"{reached} of {len(runs)}", *map(_paired, found)))
    return "\n".join(lines)


def _headlines(runs: Mapping[Where, Outcome], procedure: Procedure) -> list[str]:
    """The cells of the headlines; empty where there are no runs."""
    return [text(spread(at(runs, procedure, TARGET, share(name)))) if runs else "" for name in HEADLINES]


def forgetting(results: Results) -> str:
    """What training on wrong answers leaves of the skills that were asked, and of all, at every rate."""
    lines = [
        head("training", "tokens that count", "rate", "exact answers, six skills", "general", "norm of the change")
    ]
    start = results.starts("early")[WORLDS[0], 0]
    lines.append(row(START, "", "", *_skills(start), "0"))
    for task, name in _TOKEN_TASKS.items():
        for outcome in results.tried(task):
            point, _ = outcome.chosen("trained", TARGET)
            lines.append(
                row(name, outcome.run.method, f"{outcome.run.rate:g}", *_skills(point), _number(point.norm, 2))
            )
    return "\n".join(lines)


def forgetting_worlds(results: Results) -> str:
    """The same at the chosen rates in all worlds: changes from the model that training began with, in points."""
    lines = [head("training", "tokens that count", "worlds", "exact answers, six skills", "general")]
    starts = results.starts("early")
    for task, name in _TOKEN_TASKS.items():
        for arm, runs in results.runs(task).items():
            ends = {where: outcome.chosen("trained", TARGET)[0] for where, outcome in runs.items()}
            asked, general = (
                spread({where: 100 * (of(end) - of(starts[where])) for where, end in ends.items() if where in starts})
                for of in (_asked, lambda point: point.test["general"])
            )
            lines.append(row(name, arm, str(asked.num_worlds), *(_signed(found) for found in (asked, general))))
    return "\n".join(lines)


def _signed(found: Spread) -> str:
    return f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def _asked(point: Point) -> float:
    return sum(point.test[skill] for skill in ASKED) / len(ASKED)


def _skills(point: Point) -> tuple[str, str]:
    return f"{100 * _asked(point):.1f}", f"{100 * point.test['general']:.1f}"


def polarity(results: Results) -> str:
    """How well the rewriter's probability tells wrong tokens from right ones, by world."""
    lines = [head("world", "wrong answers", "tokens", "of them wrong", "1 - p tells wrong ones", "p tells wrong ones",
                  "mean p of wrong tokens", "of others", "wrong ones below 0.5", "others below 0.5")]  # fmt: skip
    for world, (answers, wrong, probability) in results.tokens.items():
        area = area_under_curve(1 - probability, wrong)
        low, high = _area_interval(answers, wrong, 1 - probability)
        below = 100 * (probability < 0.5)
        lines.append(row(
            str(world), str(len(np.unique(answers))), str(len(wrong)), f"{100 * wrong.mean():.0f} %",
            f"{area:.3f} [{low:.3f}, {high:.3f}]", f"{1 - area:.3f}", f"{probability[wrong].mean():.2f}",
            f"{probability[~wrong].mean():.2f}", f"{below[wrong].mean():.0f} %", f"{below[~wrong].mean():.0f} %",
        ))  # fmt: skip
    return "\n".join(lines)


def _area_interval(answers: np.ndarray, wrong: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The ends of a 95 % interval by the bootstrap over answers, whose tokens are drawn together."""
    generator = np.random.default_rng(0)
    by_answer = np.split(np.arange(len(answers)), np.flatnonzero(np.diff(answers)) + 1)
    found = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([by_answer[index] for index in generator.integers(len(by_answer), size=len(by_answer))])
        found.append(area_under_curve(scores[drawn], wrong[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def masks(results: Results) -> str:
    """What masks choose, in world 0: the share of the mask, and in brackets the share of weights of that kind."""
    kinds = list(dict.fromkeys(each["kind"] for each in results.masks))
    lines = [head("mask", *kinds)]
    for name in dict.fromkeys(each["mask"] for each in results.masks):
        of_mask = {each["kind"]: each for each in results.masks if each["mask"] == name}
        total = sum(each["selected"] for each in of_mask.values())
        cells = (f"{100 * each['selected'] / total:.0f} % ({100 * each['selected'] / each['numel']:.0f} %)"
                 for each in of_mask.values())  # fmt: skip
        lines.append(row(name, *cells))
    return "\n".join(lines)


def coverage(results: Results) -> str:
    """How many runs there are of each task."""
    lines = [head("task", "runs", "arms", "worlds", "seeds")]
    for task in results.plan.tasks:
        runs = [outcome.run for outcome in results.outcomes if outcome.run.task == task and outcome.run.method != START]
        sets = ({getattr(run, name) for run in runs} for name in ("method", "world", "seed"))
        if runs:
            lines.append(row(task, str(len(runs)), *(str(len(values)) for values in sets)))
    return "\n".join(lines)


def _norm(point: Point, world: int) -> float | None:
    return point.norm


def _paired(found: Paired | None) -> str:
    if found is None:
        return ""
    worlds = interval(found.over_worlds)
    if found.over_items is None:
        return worlds
    low, high = found.over_items
    return f"{worlds}; items [{low:+.1f}, {high:+.1f}]"


def _shares(point: Point) -> str:
    return " / ".join(f"{100 * point.test[name]:.1f}" for name in HEADLINES)


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


TABLES: Final[dict[str, Table]] = {
    **{f"{task}-{name}": (lambda results, of=table, task=task: of(results, task))
       for task in ("sft", "dpo") for name, table in (("arms", arms), ("pairs", pairs), ("tuned", tuned),
                                                      ("controls", controls))},
    "together": lambda results: tuned(results, "sft", TOGETHER),
    "sft-ratios": lambda results: tuned(results, "sft", RATIOS),
    "together-worlds": lambda results: arms(results, "sft", TOGETHER),
    "together-controls": lambda results: controls(results, "sft", TOGETHER),
    "checks": checks,
    "masks": masks,
    "polarity": polarity,
    "chains": chains,
    "chain-pairs": chain_pairs,
    "forgetting": forgetting,
    "forgetting-worlds": forgetting_worlds,
    "coverage": coverage,
}  # fmt: skip
