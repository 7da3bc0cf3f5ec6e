"""The work of ``ogpsa build-basis``: reference gradients of a model, stored as a basis."""

from __future__ import annotations

from data_registry.prepared import prepared_table
from pipelines.basis.inputs import basis_inputs, task_of
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.core import collecting
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import on_main, rank, world_size
from pipelines.core.making import Made, Wanted, make
from pipelines.engine import joining
from pipelines.engine.deepspeed_config import plan_text
from pipelines.engine.unneeded import leave_out
from pipelines.models.loading import check_loadable, check_plannable
from pipelines.models.reference import resolve_model


def run(config: BuildBasisConfig) -> Made:
    """Build the basis that ``config`` describes, or find it built.

    Raises:
        OgpsaError: an input cannot be used; the message says which and what to do.
    """
    joining.join()
    config = on_main(lambda: config.settled())
    source = on_main(lambda: resolve_model(config.model, revision=config.revision))
    inputs = on_main(lambda: basis_inputs(config, source))

    def write(writer: ArtifactWriter) -> None:
        leave_out(with_trl=True)
        from pipelines.basis import building
        from pipelines.basis.references import objectives_for_rank
        from pipelines.engine import processes

        collecting.settle()
        device = processes.start()
        on_main(lambda: check_loadable(source, trust_remote_code=config.trust_remote_code))
        references, pad_token_id, left_out = building.tokenised_references(config, source)
        engine, architecture = building.open_engine(config, source, device)
        references = building.with_reference(config, references, engine, pad_token_id)
        objectives = objectives_for_rank(
            references,
            batch_size=config.batch_size,
            pad_token_id=pad_token_id,
            rank=rank(),
            world_size=world_size(),
        )
        result = building.compute_gradients(engine, objectives, config)
        building.write_basis(writer, config, references, engine.access, result, architecture, left_out)

    # All the work is done while the place is held, so that nobody computes gradients that then have no place.
    return make(Wanted(config.out, "basis", config, inputs, overwrite=config.overwrite), write)


def plan(config: BuildBasisConfig) -> list[tuple[str, str]]:
    """The plan that ``--dry-run`` shows, as pairs of name and text."""
    from pipelines.memory.planning import basis_memory, model_text

    length, config = config.length(), config.settled()
    source = resolve_model(config.model, revision=config.revision)
    check_plannable(source, trust_remote_code=config.trust_remote_code)
    rows = [("model", model_text(source)), ("engine", plan_text(config))]
    for path in config.reference:
        table, _ = prepared_table(path, task=task_of(config))
        rows.append(("reference", f"{path}: {min(config.num_samples, len(table))} of {len(table)} samples"))
    rows.append(("length", str(length)))
    rows.append(("rows", f"{len(config.reference)} per parameter tensor, stored as {config.dtype}"))
    pairs = task_of(config) == "preference"
    passes = (config.batch_size * (2 if pairs else 1), config.longest)
    return [*rows, *basis_memory(config, source, len(config.reference), passes)]
