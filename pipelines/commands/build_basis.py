"""Recipe of ``ogpsa build-basis``: reference gradients of a model, stored as a basis."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_registry.core.manifest import Manifest, read_manifest
from data_registry.prepared import load_prepared
from pipelines.basis import references as basis_objectives
from pipelines.basis.building import (
    basis_inputs,
    compute_gradients,
    open_engine,
    task_of,
    tokenised_references,
    with_reference,
    write_basis,
)
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.core.artifact import find_finished
from pipelines.core.job import barrier, on_main, rank, world_size
from pipelines.engine import processes
from pipelines.engine.deepspeed_config import plan_text
from pipelines.models.reference import resolve_model


@dataclass(frozen=True)
class BuildBasisResult:
    """Where the basis lies, its manifest, and whether nothing had to be done."""

    path: Path
    manifest: Manifest
    up_to_date: bool


def run(config: BuildBasisConfig) -> BuildBasisResult:
    """Build the basis that ``config`` describes, or find it built.

    Raises:
        OgpsaError: an input cannot be used; the message says which and what to do.
    """
    device = processes.start()
    source = on_main(lambda: resolve_model(config.model, revision=config.revision))
    inputs = on_main(lambda: basis_inputs(config, source))
    finished = on_main(lambda: find_finished(config.out, "basis", config, inputs, overwrite=config.overwrite))
    if finished is not None:
        return BuildBasisResult(config.out, finished, up_to_date=True)
    references, pad_token_id = tokenised_references(config, source)
    engine, architecture = open_engine(config, source, device)
    references = with_reference(config, references, engine, pad_token_id)
    objectives = basis_objectives.objectives_for_rank(
        references,
        batch_size=config.batch_size,
        pad_token_id=pad_token_id,
        rank=rank(),
        world_size=world_size(),
    )
    result = compute_gradients(engine, objectives, config)
    write_basis(config, inputs, references, engine.access, result, architecture)
    barrier()
    return BuildBasisResult(config.out, read_manifest(config.out), up_to_date=False)


def plan(config: BuildBasisConfig) -> list[tuple[str, str]]:
    """What would be done, for ``--dry-run``."""
    source = resolve_model(config.model, revision=config.revision)
    rows = [("model", source.reference), ("engine", plan_text(config))]
    for path in config.reference:
        dataset, _ = load_prepared(path, task=task_of(config))
        rows.append(("reference", f"{path}: {min(config.num_samples, len(dataset))} of {len(dataset)} samples"))
    rows.append(("rows", f"{len(config.reference)} per parameter tensor, stored as {config.dtype}"))
    return rows
