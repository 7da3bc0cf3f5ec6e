"""One run of the study with everything that is measured of it, kept as one file."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.studies.tradeoff.materials import Cost, Materials, num_tokens
from benchmarks.studies.tradeoff.plan import Plan, Run
from benchmarks.studies.tradeoff.scoring import Scorer
from benchmarks.studies.tradeoff.training import FORWARD, Look, Trained, train
from data_registry.prepared import load_prepared
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig

EVERY: Final = 10
"""The number of steps between two looks at validation safety."""
ALPHAS: Final = tuple(round(0.05 * number, 2) for number in range(19, 3, -1))
"""Where on the way from the starting to the trained weights safety is looked at, from the far end."""
TARGET: Final = 0.99
"""The validation safety that a run is stopped at, or interpolated to."""
_NEAR: Final = 0.95
_HOPELESS: Final = 0.7
_NOWHERE: Final = 2.0
_HALVINGS: Final = 3

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Bench:
    """What all runs in one world share: the starting model's weights, a model to put weights into, and the scorer."""

    start: Weights
    model: Any
    scorer: Scorer

    @classmethod
    def of(cls, folder: Path, world: int) -> Bench:
        """The bench of a world, whose starting model lies in ``folder``."""
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return cls(weights_of(model), model, Scorer(world, AutoTokenizer.from_pretrained(folder)))

    def put(self, trained: Weights, alpha: float) -> Any:
        """The model at a share of the way from the start to the trained weights."""
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                weight.copy_(torch.lerp(self.start[name], trained[name], alpha))
        return self.model

    def distance(self, model: Any) -> float:
        """How far a model without adapters is from the start: the norm of the difference of all weights."""
        with torch.no_grad():
            squares = [((weight - self.start[name]) ** 2).sum() for name, weight in model.named_parameters()]
            return float(torch.stack(squares).sum().sqrt())


def measure(run: Run, plan: Plan, materials: Materials, bench: Bench, scratch: Path) -> dict[str, Any]:
    """Train, and measure on the way, at the end, and between the start and the end.

    Returns:
        the run; ``cost`` in tokens and seconds with its set-up; ``points``, each with the step (and ``alpha`` where it
        lies between start and end), validation safety, and where that is worth measuring the figures of both splits.
    """
    options, setup = materials.fill(_options(run, plan))
    averaged_after = run.steps / 2 if plan.methods[run.method].averaged else None
    record = watched(
        bench, lambda look: _train(run, plan, materials, options, scratch, look), averaged_after=averaged_after
    )
    record["cost"]["setup"] = asdict(setup)
    return {"run": asdict(run), **record}


def watched(
    bench: Bench,
    training: Callable[[Look], tuple[Trained, Cost]],
    *,
    targets: Sequence[float] = (),
    averaged_after: float | None = None,
) -> dict[str, Any]:
    """What is measured of a training: at every tenth step, at its end, and between the start and the end.

    Args:
        bench: the bench of the start that shares are counted from.
        training: trains, calls what it is given after steps, and returns what it trained with the cost.
        targets: validation safeties; if any are given, all figures are measured only where a step reaches one for the
            first time, at the smallest share that does (found to less than 0.01), and every 80 steps. How long the
            change from the start is, and which items of the test count, are then kept as well.
        averaged_after: the step after which the weights of every tenth step are averaged, to count as those of the end;
            None where those of the last step count.

    Returns:
        ``cost/training``, ``points``, the trainer's last line (``log``) and what transforms say at the end (``left``).
    """
    points: list[dict[str, Any]] = []
    passed: list[Weights] = []
    fully = bool(targets)

    def add(model: Any, least: float, **where: float) -> None:
        found = {**where, **_figures(bench.scorer, model, least, fully=fully)}
        if fully:
            found["norm"] = bench.distance(model)
        points.append(found)

    def look(model: Any, step: int, tokens: float) -> None:
        if averaged_after is not None and step > averaged_after:
            passed.append(weights_of(model))
        so_far = max((point["validation"]["safe"] for point in points), default=0.0)
        ahead = [target for target in targets or (TARGET,) if target > so_far]
        least = min(ahead, default=_NOWHERE if fully else 1.0)
        add(model, 0.0 if step % 80 == 0 else least, step=step, alpha=1.0, tokens=tokens)

    trained, cost = training(look)
    weights = _mean(passed) if passed else weights_of(trained.model)
    points[-1] |= _figures(bench.scorer, bench.put(weights, 1.0), 0.0, fully=fully)
    end = len(points) - 1
    for alpha in ALPHAS:
        where = {"step": points[end]["step"], "alpha": alpha, "tokens": trained.tokens}
        add(bench.put(weights, alpha), _NOWHERE if fully else _NEAR, **where)
        if points[-1]["validation"]["safe"] < _HOPELESS:
            break
    if fully:
        points[end + 1 :] = _at_targets(points[end:], bench, weights, targets)
    return {
        "cost": {"training": asdict(cost)},
        "points": points,
        "log": trained.log[-2] if len(trained.log) > 1 else {},
        "left": trained.left,
    }


def _at_targets(
    way: Sequence[dict[str, Any]], bench: Bench, weights: Weights, targets: Sequence[float]
) -> list[dict[str, Any]]:
    """The points between the start and the end, with a point of all figures just where safety reaches each target."""
    way = list(way)
    for target in targets:
        number = next((index for index, point in enumerate(way) if point["validation"]["safe"] < target), len(way))
        if number == 0:
            continue
        kept = way[number - 1]
        low = way[number]["alpha"] if number < len(way) else kept["alpha"]
        for _ in range(_HALVINGS if number < len(way) else 0):
            alpha = (kept["alpha"] + low) / 2
            model = bench.put(weights, alpha)
            figures = _figures(bench.scorer, model, _NOWHERE, fully=True)
            point = {**{name: kept[name] for name in ("step", "tokens")}, "alpha": alpha, **figures}
            way.append({**point, "norm": bench.distance(model)})
            if figures["validation"]["safe"] >= target:
                kept = way[-1]
            else:
                low = alpha
        if "test" not in kept:
            kept |= _figures(bench.scorer, bench.put(weights, kept["alpha"]), 0.0, fully=True)
        way.sort(key=lambda point: -point["alpha"])
    return way[1:]


def _options(run: Run, plan: Plan) -> dict[str, Any]:
    method = plan.methods[run.method]
    return {**plan.settings, **method.options}


def _dpo_options(run: Run, plan: Plan) -> dict[str, Any]:
    """The options that a run has in DPO alone."""
    return {**plan.dpo, **(plan.methods[run.method].dpo or {})}


def _train(
    run: Run, plan: Plan, materials: Materials, options: Mapping[str, Any], scratch: Path, look: Any
) -> tuple[Trained, Cost]:
    """Train once, or twice for a chain; the cost is that of all training."""
    shutil.rmtree(scratch, ignore_errors=True)
    every = range(EVERY, run.steps + 1, EVERY)
    common = {"max-steps": run.steps, "seed": run.seed}
    model, before = materials.model, Cost()
    if run.task != "dpo":
        rate = run.rate if run.task == "sft" else plan.chosen["sft"][run.method]
        at = every if run.task == "sft" else ()
        given = {**options, **common, "learning-rate": rate}
        config = config_of(TrainSftConfig, given, model, materials.safety("safety-sft"), scratch / "sft")
        trained = train(config, at=at, look=look)
        before = Cost(trained.tokens, trained.cpu_s + trained.setup_s)
        if run.task == "sft":
            return trained, before
        model = saved(trained.model, model, scratch / "sft-model")
    pairs = materials.safety("safety-dpo")
    given = {**options, **_dpo_options(run, plan), **common, "learning-rate": run.rate}
    config = config_of(TrainDpoConfig, given, model, pairs, scratch / "dpo")
    trained = train(config, at=every, look=look)
    # The log-probabilities of all pairs by the starting model are computed before training.
    reference = FORWARD * num_tokens(load_prepared(pairs, task="preference")[0])
    return trained, before + Cost(reference + trained.tokens, trained.cpu_s + trained.setup_s)


def config_of(kind: type[TrainConfig], options: Mapping[str, Any], model: Path, data: Path, out: Path) -> TrainConfig:
    """The options of a training command, with names as on its command line."""
    given = {**options, "model": str(model), "data": [data], "out": out}
    return kind.model_validate({name.replace("-", "_"): value for name, value in given.items()})


def saved(model: Any, like: Path, folder: Path) -> Path:
    """A model as a directory, adapters folded in, with the tokenizer of another."""
    merged = AutoModelForCausalLM.from_pretrained(like, dtype=torch.float32)
    merged.load_state_dict(weights_of(model), strict=False)
    merged.save_pretrained(folder)
    AutoTokenizer.from_pretrained(like).save_pretrained(folder)
    return folder


def weights_of(model: Any) -> Weights:
    """A copy of all weights, adapters folded in, by the names that they have without adapters."""
    if hasattr(model, "merge_and_unload"):
        # Of a copy: training may go on with the adapters.
        model = copy.deepcopy(model).merge_and_unload()
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def _mean(passed: Sequence[Weights]) -> Weights:
    """The mean over weights of several steps."""
    return {name: torch.stack([weights[name] for weights in passed]).mean(dim=0) for name in passed[0]}


def _figures(scorer: Scorer, model: Any, least: float, *, fully: bool) -> dict[str, Any]:
    """Validation safety, and all figures of both splits where it is at least ``least``."""
    safe = scorer.safety(model, "validation")
    if safe < least:
        return {"validation": {"safe": safe}}
    answers = scorer.answers(model, "test")
    return {
        "validation": scorer.figures(model, "validation"),
        "test": scorer.figures_of("test", answers),
        **({"answers": "".join("01"[answer] for answer in answers)} if fully else {}),
    }


def write(record: Mapping[str, Any], file: Path) -> None:
    """Write a record so that it is there whole or not at all."""
    aside = file.with_name(f"{file.name}.part")
    aside.write_text(json.dumps(record), encoding="utf-8")
    aside.rename(file)
