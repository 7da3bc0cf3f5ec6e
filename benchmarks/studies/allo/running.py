"""One run of the study: a chain of training commands, watched as in the study of the trade-off."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.studies.allo.materials import CONFIGS, MaskMaterials
from benchmarks.studies.allo.plan import MaskPlan, Phase
from benchmarks.studies.tradeoff.materials import Cost, num_tokens
from benchmarks.studies.tradeoff.plan import Run
from benchmarks.studies.tradeoff.running import EVERY, Bench, config_of, saved, watched
from benchmarks.studies.tradeoff.training import FORWARD, Look, Trained, train
from data_registry.prepared import load_prepared
from pipelines.configs.train import TrainConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.making import Wanted, make
from pipelines.models.reference import resolve_model

TARGETS = (0.95, 0.985)
"""The validation safeties at which runs are measured."""


def measure(run: Run, plan: MaskPlan, materials: MaskMaterials, bench: Bench, scratch: Path) -> dict[str, Any]:
    """Train, and measure on the way, at the end, and between the start of the chain and its end."""
    shutil.rmtree(scratch, ignore_errors=True)
    options, setup = materials.fill({**plan.settings, **plan.methods[run.method].options})
    record = watched(bench, lambda look: _train(run, plan, materials, options, scratch, look), targets=TARGETS)
    record["cost"]["setup"] = asdict(setup)
    return {"run": asdict(run), **record}


def _train(
    run: Run, plan: MaskPlan, materials: MaskMaterials, options: Mapping[str, Any], scratch: Path, look: Look
) -> tuple[Trained, Cost]:
    model, cost, done = materials.model, Cost(), 0
    phases = plan.tasks[run.task].phases
    for number, phase in enumerate(phases):
        rate = run.rate if phase.rate is None else phase.rate
        steps = round(phase.share * run.steps)
        out = scratch / f"phase-{number}"
        given = {**wanted(phase, options), "learning-rate": rate, "max-steps": steps, "seed": run.seed}
        config = config_of(CONFIGS[phase.train], {**given, **phase.options}, model, materials.data(phase.train), out)
        trained, spent = _phase(phase, config, _later(look, done, cost.tokens))
        cost, done = cost + spent, done + steps
        if number < len(phases) - 1:
            model = handed_on(trained.model, materials.base, scratch / f"model-{number}", config)
    return replace(trained, tokens=cost.tokens), cost


def _phase(phase: Phase, config: TrainConfig, look: Look) -> tuple[Trained, Cost]:
    assert config.max_steps is not None
    trained = train(config, at=range(EVERY, config.max_steps + 1, EVERY), look=look)
    before = 0.0
    if phase.train != "sft":
        # The log-probabilities of all pairs by the model that the phase starts from.
        before = FORWARD * num_tokens(load_prepared(config.data[0], task="preference")[0])
    return trained, Cost(before + trained.tokens, trained.cpu_s + trained.setup_s)


def handed_on(model: Any, like: Path, folder: Path, config: TrainConfig) -> Path:
    """The model that the next phase starts from, with its lineage: the mask of a chain is that of its first start."""

    def write(writer: ArtifactWriter) -> None:
        saved(model, like, writer.path)

    return make(Wanted(folder, "model", config, [resolve_model(config.model).input_record()]), write).path


def wanted(phase: Phase, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method that a phase takes: forgetting alone has token weights, DPO alone a filter of tokens."""
    not_for = {"npo": ("rejected-tokens",), "dpo": ("token-weights",)}.get(phase.train, ())
    return {name: value for name, value in options.items() if name not in not_for}


def _later(look: Look, steps: int, tokens: float) -> Look:
    """A look that counts steps and tokens from the beginning of a chain."""
    return lambda model, step, so_far: look(model, steps + step, tokens + so_far)
