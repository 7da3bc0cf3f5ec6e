"""The work of ``ogpsa build-mask``: the single weights that training may move, chosen by a score and stored as bits."""

from __future__ import annotations

from pipelines.configs.build_mask import BuildMaskConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import on_main
from pipelines.core.making import Made, Wanted, make
from pipelines.engine import processes
from pipelines.engine.deepspeed_config import plan_text
from pipelines.masks.building import build, choice_of, eligible_parameters, mask_inputs
from pipelines.masks.description import KIND
from pipelines.models.reference import resolve_model


def run(config: BuildMaskConfig) -> Made:
    """Build the mask that ``config`` describes, or find it built.

    Raises:
        OgpsaError: an input cannot be used, or no weight is chosen; the message says which and what to do.
    """
    device = processes.start()
    config = on_main(lambda: config.settled())
    source = on_main(lambda: resolve_model(config.model, revision=config.revision))
    inputs = on_main(lambda: mask_inputs(config, source))

    def write(writer: ArtifactWriter) -> None:
        build(writer, config, source, device)

    return make(Wanted(config.out, KIND, config, inputs, overwrite=config.overwrite), write)


def plan(config: BuildMaskConfig) -> list[tuple[str, str]]:
    """The plan that ``--dry-run`` shows, as pairs of name and text; the inputs are checked."""
    length, config = config.length(), config.settled()
    source = resolve_model(config.model, revision=config.revision)
    inputs = mask_inputs(config, source)
    rows = [(record.role, record.path) for record in inputs]
    among = eligible_parameters(config, source)
    numel = sum(parameter.numel for parameter in among)
    first, last = choice_of(config).places(numel)
    if config.needs_gradients:
        rows += [("engine", plan_text(config)), ("length", str(length))]
    rows.append(("score", config.score))
    rows.append(("among", f"{numel:,} weights of {len(among)} parameters"))
    share = "of all together" if config.scope == "global" else "of every parameter"
    rows.append(("chosen", f"{config.ratio - config.skip_top:.4g} {share}, some {last - first:,} weights"))
    rows.append(("size", f"{-(-numel // 8):,} bytes of bits"))
    return rows
