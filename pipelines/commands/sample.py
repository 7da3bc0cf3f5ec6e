"""The work of ``ogpsa sample``: a model's own answers to the prompts of a data set, as a data set."""

from __future__ import annotations

from data_registry.prepared import SAMPLES
from pipelines.configs.sample import SampleConfig
from pipelines.core import collecting
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import on_main
from pipelines.core.making import Made, Wanted, make
from pipelines.engine import joining
from pipelines.engine.unneeded import leave_out
from pipelines.models.reference import resolve_model
from pipelines.sampling.inputs import decoding_of, sample_inputs
from pipelines.sampling.prompts import read_prompts


def run(config: SampleConfig) -> Made:
    """Make the samples that ``config`` describes, or find them made.

    Raises:
        OgpsaError: an input cannot be used; the message says which and what to do.
    """
    joining.join()
    source = on_main(lambda: resolve_model(config.model, revision=config.revision))
    inputs = on_main(lambda: sample_inputs(config, source))
    wanted = Wanted(config.out, SAMPLES, config, inputs, overwrite=config.overwrite, keep_partial=True)

    def write(writer: ArtifactWriter) -> None:
        leave_out()
        from pipelines.engine import processes
        from pipelines.sampling.making import make_samples

        collecting.settle()
        make_samples(config, source, processes.start(), writer)

    return make(wanted, write)


def plan(config: SampleConfig) -> list[tuple[str, str]]:
    """What :func:`run` would do, for ``--dry-run``.

    Raises:
        OgpsaError: as for :func:`run`, as far as it shows without the model's weights.
    """
    source = resolve_model(config.model, revision=config.revision)
    sample_inputs(config, source)
    prompts = read_prompts(config.data, config.num_samples, config.seed)
    log_probs = "none" if config.log_probs == 0 else f"the {config.log_probs} most likely tokens, and the rest together"
    behind = "" if config.answer_after is None else f", of what stands behind '{config.answer_after}'"
    grades = [] if config.grade == "none" else [("grades", f"{config.grade}{behind}, by the answers of {config.data}")]
    return [
        ("model", f"{source.path_or_id}, {source.fingerprint()[:12]}"),
        ("prompts", f"{len(prompts.messages)} of {prompts.num_distinct} in {prompts.num_rows} rows of {config.data}"),
        ("answers", f"{config.answers} each, {decoding_of(config).describe()}, by {config.backend}"),
        ("log-probabilities", log_probs),
        *grades,
        ("output", str(config.out)),
    ]
