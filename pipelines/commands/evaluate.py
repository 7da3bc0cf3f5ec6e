"""The work of ``ogpsa evaluate``: measure a model on suites and store figures, answers and settings."""

from __future__ import annotations

from pipelines.configs.evaluate import EvaluateConfig
from pipelines.core import collecting
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import is_main, on_main
from pipelines.core.making import Wanted, make
from pipelines.engine import joining
from pipelines.engine.unneeded import leave_out
from pipelines.evaluation import rejudging
from pipelines.evaluation.contract.results import KIND, EvaluateResult, read_results
from pipelines.evaluation.contract.suite import GeneratingSuite
from pipelines.evaluation.registry import names_in_results
from pipelines.evaluation.request import evaluation_inputs, evaluation_plan, requested_suites, resolve_source
from pipelines.reporting.baseline import Changed, check_in_common, compare_with_baseline


def run(config: EvaluateConfig) -> EvaluateResult:
    """Evaluate a model; does nothing where the same results are there already.

    Answers are made by all processes of the job; everything else is done by the first.

    Raises:
        ConfigError: suites and options do not go together.
        InputError: the model or a data set cannot be used.
        ArtifactError: an input does not verify, or something else lies at ``--out``.
        NumericsError: the model gives a loss that is not finite.
    """
    if config.baseline is not None:
        # A problem with the baseline should be reported before hours of work.
        read_results(config.baseline)
    if config.rejudge is not None:
        if config.baseline is not None:
            check_in_common(config.baseline, [suite.suite for suite in read_results(config.rejudge).suites])
        return rejudging.run(config)
    assert config.out is not None, "the configuration is checked for it"
    joining.join()
    suites, judge = requested_suites(config)
    if config.baseline is not None:
        check_in_common(config.baseline, names_in_results(config.suite, suites))
    source = on_main(lambda: resolve_source(config))
    inputs = on_main(lambda: evaluation_inputs(config, source, suites, judge))
    generates = any(isinstance(suite, GeneratingSuite) for suite in suites)

    def write(writer: ArtifactWriter) -> None:
        leave_out()
        from pipelines.engine import processes
        from pipelines.evaluation.measuring import measure, write_evaluation

        collecting.settle()
        measured = measure(config, source, suites, judge, processes.start(), writer.path if is_main() else None)
        if is_main():
            write_evaluation(writer, config, source, suites, measured)

    made = make(Wanted(config.out, KIND, config, inputs, overwrite=config.overwrite, keep_partial=generates), write)
    return EvaluateResult(made.path, made.manifest, made.up_to_date, read_results(made.path))


def compare(config: EvaluateConfig, result: EvaluateResult) -> list[Changed]:
    """What changed from the baseline, for every figure that both have; empty if there is no baseline.

    Raises:
        InputError: the two were made under different settings; the error lists all differences.
        ArtifactError: the baseline does not verify.
    """
    if config.baseline is None:
        return []
    name = result.results.run
    return compare_with_baseline(config.baseline, result.path, name=name, resamples=config.bootstrap, seed=config.seed)


def plan(config: EvaluateConfig) -> list[tuple[str, str]]:
    """What :func:`run` would do, without loading weights.

    Raises:
        ConfigError: as for :func:`run`.
        InputError: as for :func:`run`.
        ArtifactError: as for :func:`run`.
    """
    if config.rejudge is not None:
        return rejudging.plan(config)
    return evaluation_plan(config)
