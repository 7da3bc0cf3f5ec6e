"""One run of the study: trained in this process, its model set aside at some steps, and each of these evaluated."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors.torch import load_file, save_file

from benchmarks.studies.smollm2.materials import Materials, command
from benchmarks.studies.smollm2.plan import Plan, Run
from benchmarks.studies.tradeoff.running import weights_of, write
from benchmarks.studies.tradeoff.training import train
from pipelines.configs.train import TrainConfig, TrainDpoConfig, TrainSftConfig
from pipelines.evaluation.contract.results import HARMFUL_COMPLIANCE, OVER_REFUSAL, Results, read_results

RECORD: Final = "record.json"
WEIGHTS: Final = "model.safetensors"
Side = Literal["validation", "test"]


def measure(run: Run, plan: Plan, materials: Materials, folder: Path) -> None:
    """Train, evaluate on the way and between start and end, choose by validation, and evaluate the choice on the test.

    Everything lies in ``folder`` at the end, but for the models.

    Args:
        run: the run.
        plan: the plan.
        materials: what it is made from.
        folder: the run's own directory.
    """
    cost = folder / "cost.json"
    if not cost.exists():
        started = time.process_time(), time.monotonic()
        tokens = _train(run, plan, materials, folder)
        spent = {"tokens": tokens, "cpu_s": time.process_time() - started[0], "wall_s": time.monotonic() - started[1]}
        write(spent, cost)
    end = folder / "models" / str(max(int(path.name) for path in (folder / "models").iterdir() if path.name.isdigit()))
    for model in sorted(
        (path for path in end.parent.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
    ):
        evaluate(model, plan, materials, folder / "results" / f"step-{model.name}", "validation")
    for alpha in plan.alphas:
        evaluate(_mixed(end, materials, alpha), plan, materials, folder / "results" / f"mixed-{alpha}", "validation")
    chosen = choose(folder / "results", plan)
    if run.task in plan.ends or chosen == f"step-{end.name}":
        evaluate(end, plan, materials, folder / "results" / "end-test", "test")
    if chosen != f"step-{end.name}":
        kind, _, number = chosen.partition("-")
        model = end.parent / number if kind == "step" else _mixed(end, materials, float(number))
        evaluate(model, plan, materials, folder / "results" / "chosen-test", "test")
    write({"run": asdict(run), "chosen": chosen, "cost": json.loads(cost.read_text(encoding="utf-8"))}, folder / RECORD)
    shutil.rmtree(folder / "models")


def evaluate(model: Path, plan: Plan, materials: Materials, out: Path, side: Side) -> None:
    """Measure a model on one side, unless it is done."""
    what = getattr(plan, side)
    data = [*materials.measured(side), *([materials.held_out_answers()] if side == "test" else [])]
    command(
        "evaluate", model=str(model), suite=what.suites, data=data, num_samples=what.items,
        name=f"{out.parent.parent.name} {out.name}",
        max_new_tokens=plan.max_new_tokens, max_length=256, batch_size=plan.eval_batch_size, num_procs=1,
        precision=plan.settings["precision"], out=out,
    )  # fmt: skip


def choose(results: Path, plan: Plan) -> str:
    """The point with the least over-refusal on the validation side among those with little harmful compliance.

    Where no point reaches the target, it is the one with the least compliance.
    """
    # A run that was cut leaves a hidden folder of what it was measuring.
    finished = [path for path in sorted(results.iterdir()) if not path.name.startswith(".")]
    found = {path.name: shares(read_results(path)) for path in finished if not path.name.endswith("test")}
    safe = {name: figures for name, figures in found.items() if figures[HARMFUL_COMPLIANCE] <= plan.target}
    if safe:
        return min(safe, key=lambda name: (safe[name][OVER_REFUSAL], safe[name][HARMFUL_COMPLIANCE]))
    return min(found, key=lambda name: found[name][HARMFUL_COMPLIANCE])


def shares(results: Results) -> dict[str, float]:
    """Harmful compliance and over-refusal of results, each the mean over the suites that have it."""
    found: dict[str, list[float]] = {}
    for suite in results.suites:
        for metric in suite.metrics:
            if metric.name in (HARMFUL_COMPLIANCE, OVER_REFUSAL):
                found.setdefault(metric.name, []).append(metric.value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _train(run: Run, plan: Plan, materials: Materials, folder: Path) -> float:
    """Train and set the model aside at the steps of the plan; the tokens that went through the model."""
    shutil.rmtree(folder, ignore_errors=True)
    models, tokens = folder / "models", 0.0

    def look(model: Any, step: int, spent: float) -> None:
        _save(weights_of(model), materials.model, models / str(step))

    start = materials.model
    for kind, task, at in _parts(run, plan):
        trained = train(_config(kind, task, run, plan, materials, start, folder / f"training-{task}"), at=at, look=look)
        tokens += trained.tokens
        if not at:
            start = _save(weights_of(trained.model), materials.model, models / "between")
    return tokens


def _parts(run: Run, plan: Plan) -> Iterator[tuple[type[TrainConfig], Literal["sft", "dpo"], tuple[int, ...]]]:
    """The trainings of a run, each with the steps at which its model is set aside."""
    asked = plan.methods[run.method].looks if run.task == "sft" else None
    looks = tuple(sorted({*(step for step in asked or plan.looks if step < run.steps), run.steps}))
    if run.task != "dpo":
        yield TrainSftConfig, "sft", looks if run.task == "sft" else ()
    if run.task != "sft":
        yield TrainDpoConfig, "dpo", looks


def _config(
    kind: type[TrainConfig],
    task: Literal["sft", "dpo"],
    run: Run,
    plan: Plan,
    materials: Materials,
    start: Path,
    out: Path,
) -> TrainConfig:
    method = plan.methods[run.method]
    more = {} if task == "sft" else {**plan.dpo, **(method.dpo or {})}
    options = {**plan.settings, **materials.fill(method.options), **more}
    options |= {"model": str(start), "data": [materials.safety(task)], "out": out, "seed": run.seed,
                "max-steps": run.steps, "learning-rate": run.rate}  # fmt: skip
    return kind.model_validate({name.replace("-", "_"): value for name, value in options.items()})


def _save(weights: Mapping[str, torch.Tensor], like: Path, folder: Path) -> Path:
    """A model directory: weights, and all other files of the starting model."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in like.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and file.name != "manifest.json":
            shutil.copy(file, folder / file.name)
    aside = folder / f"{WEIGHTS}.part"
    save_file(dict(weights), aside, metadata={"format": "pt"})
    aside.rename(folder / WEIGHTS)
    return folder


def _mixed(end: Path, materials: Materials, alpha: float) -> Path:
    """The model at a share of the way from the start to the end."""
    folder = end.parent / f"mixed-{alpha}"
    if not (folder / WEIGHTS).exists():
        start, trained = load_file(materials.model / WEIGHTS), load_file(end / WEIGHTS)
        _save(
            {name: torch.lerp(start[name], tensor, alpha) for name, tensor in trained.items()}, materials.model, folder
        )
    return folder
