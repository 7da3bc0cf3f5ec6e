"""What an evaluation consists of around the measuring: models resolved, inputs recorded, results written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord, hash_file
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.evaluation.contract.answered_items import write_answers
from pipelines.evaluation.contract.judge import Judge
from pipelines.evaluation.contract.results import RESULTS_FILE, Results
from pipelines.evaluation.contract.suite import AnySuite
from pipelines.evaluation.finished import summarise
from pipelines.evaluation.judges.builtin import NAME as BUILT_IN
from pipelines.evaluation.judges.choosing import JUDGING
from pipelines.evaluation.judges.judging import write_verdicts
from pipelines.evaluation.measuring import ANSWERING, Measured
from pipelines.evaluation.requested import requested_suites
from pipelines.models.reference import ModelSource, fetch_weights, resolve_model


def download(config: EvaluateConfig) -> list[tuple[str, str]]:
    """Fetch what the suites, the judge and the model need from the hub; afterwards they run without a network.

    Returns:
        Each suite's parts, as the plan shows them; the judge's and the model's weights where these are named.

    Raises:
        OgpsaError: as for :func:`run`.
    """
    suites, judge = requested_suites(config)
    rows = [line for suite in suites for line in suite.plan()]
    if judge is not None and judge.name != BUILT_IN:
        judge.fetch()
        rows.append(("judge", judge.describe()))
    if config.model is not None:
        source = resolve_source(config)
        fetch_weights(source)
        rows.append(("model", f"{source.path_or_id}, {source.fingerprint()[:12]}"))
    return rows


def resolve_source(config: EvaluateConfig) -> ModelSource:
    """The model to be measured."""
    assert config.model is not None, "the configuration is checked for it"
    return resolve_model(config.model, revision=config.revision)


def evaluation_inputs(
    config: EvaluateConfig, source: ModelSource, suites: Sequence[AnySuite], judge: Judge | None
) -> list[InputRecord]:
    """Records of all that the evaluation reads."""
    records = [source.input_record(), *(record for suite in suites for record in suite.inputs())]
    if judge is not None:
        records += judge.inputs()
    if config.chat_template is not None:
        try:
            digest = hash_file(config.chat_template)
        except OSError as error:
            raise InputError(f"the chat template cannot be read: {error}", where=str(config.chat_template)) from error
        records.append(
            InputRecord(role="chat template", path=str(config.chat_template), kind="file", fingerprint=digest)
        )
    return records


def evaluation_plan(config: EvaluateConfig) -> list[tuple[str, str]]:
    """What would be measured, and how."""
    suites, judge = requested_suites(config)
    rows = [line for suite in suites for line in suite.plan()]
    if config.download_only:
        return rows
    source = resolve_source(config)
    kind = "adapter" if source.is_adapter else "model"
    judging = [("judge", judge.describe())] if judge is not None else []
    return [
        ("model", f"{kind} {source.path_or_id}, {source.fingerprint()[:12]}"),
        *rows,
        *judging,
        ("batches", f"at most {config.batch_size} items, {config.precision}"),
        ("intervals", f"95 %, {config.bootstrap} resamples"),
        ("output", str(config.out)),
    ]


def write_evaluation(
    writer: ArtifactWriter,
    config: EvaluateConfig,
    source: ModelSource,
    suites: Sequence[AnySuite],
    measured: Measured,
) -> None:
    """Write figures, answers and verdicts as an artifact; rank zero's work."""
    outcomes = [outcome for index in range(len(suites)) for outcome in measured.outcomes[index]]
    results = Results(
        run=config.name or source.name,
        model=str(config.model),
        model_fingerprint=source.fingerprint(),
        suites=tuple(outcome.results for outcome in outcomes),
    )
    (writer.path / RESULTS_FILE).write_text(results.to_json(), encoding="utf-8")
    write_answers(writer.path, (outcome.items for outcome in outcomes))
    if measured.verdicts:
        write_verdicts(writer.path, measured.verdicts)
    for part in (ANSWERING, JUDGING):
        shutil.rmtree(writer.path / part, ignore_errors=True)
    writer.summary = summarise(results)
