"""The work of ``ogpsa merge``: repair a fine-tuned model with a safe one, where it left the direction of alignment."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from data_registry.core.errors import ConfigError
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.configs.merge import MergeConfig
from pipelines.configs.merge_sweep import evaluation_options
from pipelines.core.artifact import ArtifactWriter, partial_path
from pipelines.core.making import Made, Wanted, find, make
from pipelines.core.option_files import option_file_inputs
from pipelines.engine import processes
from pipelines.evaluation.contract.results import Results
from pipelines.evaluation.registry import validation_side
from pipelines.evaluation.request import ANSWERING, JUDGING, requested_suites
from pipelines.evaluation.sweeping import measure_mixes
from pipelines.merging.making import MergeResult, make_results, open_merge, rule_of, thresholds_of, wanted_results
from pipelines.merging.sources import Sources, check_unchanged, merge_inputs, named_sources, resolve_sources
from pipelines.models.reference import ModelSource
from pipelines.reporting.sweep import (
    PLOT_FILE,
    SweepPoint,
    choose,
    draw_curve,
    sweep_points,
    table_lines,
    write_curve,
)

SWEEP_KIND = "sweep"


def run(config: MergeConfig) -> MergeResult | SweepResult:
    """Merge as ``config`` says, or find it done; a sweep measures mixes and makes none.

    Raises:
        ConfigError: options do not go with the inputs.
        InputError: an input is missing, damaged, pickled, not finite, or does not fit the others.
        ArtifactError: something else lies at ``--out``, or a run does not verify.
    """
    if config.sweep:
        return sweep(config)
    sources = resolve_sources(config)
    wanted = wanted_results(config, merge_inputs(sources))
    for each in wanted:
        # An obstacle at the output is reported before the weights are opened.
        find(each)
    return make_results(open_merge(config, sources), config, sources, wanted)


def plan(config: MergeConfig) -> list[tuple[str, str]]:
    """What :func:`run` would do, with the cosine of each layer and the decision; writes nothing.

    Raises:
        ConfigError: as for :func:`run`.
        InputError: as for :func:`run`.
        ArtifactError: as for :func:`run`.
    """
    sources = resolve_sources(config)
    if config.sweep:
        return _sweep_plan(config, sources)
    opened = open_merge(config, sources)
    rows = [(name, source.reference) for name, source in named_sources(sources)]
    rows += [("unpaired", text) for text in opened.unpaired]
    if not config.needs_criterion:
        return [*rows, ("layers", f"all merged by {config.method}, weights {config.weights}")]
    first = opened.report(config.cos_threshold[0])
    check_unchanged(sources)
    thresholds = thresholds_of(config, first)
    for threshold in thresholds:
        count = sum(rule_of(config).is_below(record.rho, threshold) for record in first if record.rho is not None)
        rows.append(("threshold", f"{threshold:.5g}: {count} of {len(first)} layers below"))
    for record in first:
        below = [record.rho is not None and rule_of(config).is_below(record.rho, value) for value in thresholds]
        words = ", ".join(config.repair.action if is_below else "kept" for is_below in below)
        rows.append((record.layer, f"rho {record.rho:.5f}  {words}" if record.rho is not None else record.action))
    return rows


@dataclass(frozen=True)
class SweepResult(Made):
    """What a sweep made.

    Attributes:
        table: the table of the curve as rows of cells, the heading first.
        words: what was chosen and how, in sentences.
        apply: the command that makes the chosen mix, as words; empty where none was chosen, or one of the two models.
    """

    table: list[list[str]]
    words: list[str]
    apply: list[str]


def sweep(config: MergeConfig) -> SweepResult:
    """Measure mixes of the fine-tuned model with the one at the other end, and say which would be chosen.

    No model is written.

    Raises:
        ConfigError: options do not go together or with the inputs, or there is nothing to fade towards.
        InputError: a model or data set cannot be used, or the models are not alike.
        ArtifactError: something else lies at ``--out``, or an input does not verify.
        Preempted: the process was asked to stop; the same command goes on from there.
    """
    evaluation = _evaluation(config)
    sources = resolve_sources(config)
    other = _other_end(config, sources)
    folder = partial_path(config.out, config)
    suites, judge = requested_suites(evaluation, judging=folder / JUDGING)
    inputs = [sources.finetuned.input_record("finetuned"), other.input_record("safe")]
    inputs += [record for suite in suites for record in suite.inputs()] + (judge.inputs() if judge is not None else [])
    inputs += option_file_inputs({"chat template": evaluation.chat_template})

    def write(writer: ArtifactWriter) -> None:
        results = measure_mixes(
            evaluation,
            sources.finetuned,
            other,
            sorted(config.sweep),
            suites,
            judge,
            device=processes.start(),
            folder=folder / ANSWERING,
        )
        points = sweep_points(sorted(config.sweep), results)
        chosen = choose(points, config.safe_at_least)
        words = _words(config, points, chosen, results)
        apply = _apply(config, sources, chosen.share) if chosen is not None and 0 < chosen.share < 1 else []
        write_curve(writer.path, points, chosen, results, [*words, *([shlex.join(apply)] if apply else [])])
        draw_curve(writer.path / PLOT_FILE, points, chosen, config.safe_at_least)
        for part in (ANSWERING, JUDGING):
            shutil.rmtree(writer.path / part, ignore_errors=True)
        writer.summary = {
            "chosen": chosen.share if chosen is not None else None,
            "table": table_lines(points, chosen),
            "words": words,
            "apply": apply,
        }

    made = make(Wanted(config.out, SWEEP_KIND, config, inputs, overwrite=config.overwrite, keep_partial=True), write)
    found = made.manifest.summary
    return SweepResult(made.path, made.manifest, made.up_to_date, found["table"], found["words"], found["apply"])


def _sweep_plan(config: MergeConfig, sources: Sources) -> list[tuple[str, str]]:
    suites, judge = requested_suites(_evaluation(config))
    return [
        ("finetuned", sources.finetuned.reference),
        ("safe", _other_end(config, sources).reference),
        *(line for suite in suites for line in suite.plan()),
        *([("judge", judge.describe())] if judge is not None else []),
        ("sweep", f"{len(config.sweep)} mixes in memory: {', '.join(f'{share:g}' for share in sorted(config.sweep))}"),
        ("choice", f"the smallest share from which on all are safe by {100 * config.safe_at_least:g} %; not applied"),
    ]


def _evaluation(config: MergeConfig) -> EvaluateConfig:
    suites = [validation_side(name) for name in config.suite]
    return evaluation_options(config.finetuned, config.out, suites, config.evaluation)


def _other_end(config: MergeConfig, sources: Sources) -> ModelSource:
    other = sources.safe or (sources.finetuned.base if sources.finetuned.is_adapter else None)
    if sources.safe is not None:
        # A mix that is chosen here must be one that a merge can make.
        open_merge(config, sources)
    if other is None:
        raise ConfigError(
            f"'{config.finetuned}' is a full model, and what it is to be mixed with is not named",
            fix="add --safe MODEL: the model that training started from",
        )
    return other


def _apply(config: MergeConfig, sources: Sources, share: float) -> list[str]:
    """The command that makes a mix: an adapter fades towards its base if its change alone is weighted."""
    if sources.safe is None:
        end, weights = config.finetuned, f"{share:g},0"
    else:
        assert config.safe is not None
        end, weights = config.safe, f"{share:g},{1 - share:.12g}"
    base = ["--base", config.base] if config.base is not None else []
    return [
        *("ogpsa", "merge", config.finetuned, "--method", "linear", "--safe", end, *base),
        *("--weights", weights, "--out", f"{config.out}-{share:g}"),
    ]


def _words(
    config: MergeConfig, points: Sequence[SweepPoint], chosen: SweepPoint | None, results: Sequence[Results]
) -> list[str]:
    asked = f"{100 * config.safe_at_least:g} %"
    if all(point.safety is None for point in points):
        words = ["No suite of the sweep measures safety, so that nothing is chosen."]
    elif chosen is None:
        words = [f"Nothing is chosen: not even the largest share is safe by {asked}."]
    else:
        words = [f"Chosen: {chosen.share:g}, the smallest share from which on all are safe by at least {asked}."]
        if chosen.share in (0, 1):
            words.append("That is one of the two models itself: there is nothing to merge.")
    tested = [suite.suite for suite in results[0].suites if suite.settings.split != "validation"]
    if tested:
        words.append(
            f"{', '.join(tested)} {'has' if len(tested) == 1 else 'have'} no validation side: evaluate the chosen mix "
            "on other items before you rely on its figures."
        )
    else:
        words.append("These are figures of the validation side: evaluate the chosen mix on the test side.")
    return words
