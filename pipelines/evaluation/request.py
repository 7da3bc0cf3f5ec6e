"""What a configuration of ``ogpsa evaluate`` asks for: suites, the judge that they need, the model, the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from data_registry.core.errors import ConfigError
from data_registry.core.manifest import InputRecord
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.core.artifact import partial_path
from pipelines.core.option_files import option_file_inputs
from pipelines.evaluation.answering.vllm_backend import check_installed
from pipelines.evaluation.contract.suite import AnySuite, GeneratingSuite, SuiteRequest
from pipelines.evaluation.contract.verdict import Judge
from pipelines.evaluation.judges.registry import JUDGES, create_judge
from pipelines.evaluation.registry import create_suites
from pipelines.models.reference import ModelSource, fetch_weights, resolve_model

ANSWERING: Final = "answering"
"""Folder of the unfinished artifact where answers are kept as they are made."""
JUDGING: Final = "judging"
"""Folder of the unfinished artifact where a judge model's verdicts are kept as they are made."""


def requested_suites(config: EvaluateConfig, *, judging: Path | None = None) -> tuple[list[AnySuite], Judge | None]:
    """The suites, and the judge where one of them needs it.

    Args:
        config: the options.
        judging: where a judge model's verdicts are kept as they are made; None for the usual folder.

    Raises:
        ConfigError: suites and options do not go together, or an option has no suite that it could have an effect on.
    """
    suites = create_suites(config.suite, _request(config))
    defaults = {name: info.get_default(call_default_factory=True) for name, info in EvaluateConfig.model_fields.items()}

    def given(*names: str) -> list[str]:
        return [f"--{name.replace('_', '-')}" for name in names if getattr(config, name) != defaults[name]]

    idle = []
    if not any(isinstance(suite, GeneratingSuite) for suite in suites):
        idle += given("max_new_tokens", "temperature", "top_p", "system", "backend")
    judged = [suite for suite in suites if isinstance(suite, GeneratingSuite) and suite.is_judged]
    if not judged:
        idle += given("judge", "judge_format")
    if idle:
        names = ", ".join(config.suite)
        raise ConfigError(f"{' and '.join(idle)}: none of the suites {names} asks for answers to judge")
    if config.backend == "vllm":
        others = [
            name for name, suite in zip(config.suite, suites, strict=True) if not isinstance(suite, GeneratingSuite)
        ]
        if others:
            raise ConfigError(
                f"--backend vllm makes answers, and {', '.join(others)} scores given ones with the model itself",
                fix="evaluate these suites in a run of their own",
            )
        check_installed()
    judge = requested_judge(config, judging) if judged else None
    for suite in judged:
        assert judge is not None
        suite.check_judge(judge)
    return suites, judge


def requested_judge(config: EvaluateConfig, folder: Path | None = None) -> Judge:
    """The judge that the options name.

    Args:
        config: the options.
        folder: where a judge model's verdicts are kept as they are made; None for the usual folder.

    Raises:
        ConfigError: its format is unknown.
        InputError: there is no such model.
    """
    if folder is None:
        # Without --out nothing is judged: the judge is only looked at.
        folder = work_folder(config, JUDGING) if config.out is not None else Path(JUDGING)
    return create_judge(
        config.judge,
        config.judge_format,
        batch_size=config.batch_size,
        precision=config.precision,
        folder=folder,
        trust_remote_code=config.trust_remote_code,
    )


def work_folder(config: EvaluateConfig, part: str) -> Path:
    """A folder of the unfinished artifact; the same whenever the same command runs, so that it can go on."""
    assert config.out is not None
    return partial_path(config.out, config) / part


def download(config: EvaluateConfig) -> list[tuple[str, str]]:
    """Fetch what the suites, the judge and the model need from the hub; afterwards they run without a network.

    Returns:
        Each suite's parts, as the plan shows them; the judge's and the model's weights where these are named.

    Raises:
        OgpsaError: as for :func:`requested_suites`; or the model cannot be found.
    """
    suites, judge = requested_suites(config)
    rows = [line for suite in suites for line in suite.plan()]
    if judge is not None and judge.name not in JUDGES:
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
    return [*records, *option_file_inputs({"chat template": config.chat_template})]


def evaluation_plan(config: EvaluateConfig) -> list[tuple[str, str]]:
    """The plan of a dry run: what would be measured, and how."""
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


def _request(config: EvaluateConfig) -> SuiteRequest:
    return SuiteRequest(
        data=tuple(config.data),
        num_samples=config.num_samples,
        batch_size=config.batch_size,
        max_length=config.max_length,
        seed=config.seed,
        resamples=config.bootstrap,
        harmful=tuple(config.harmful),
        harmless=tuple(config.harmless),
        system=config.system,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        tasks=tuple(config.task),
        task_dir=config.task_dir,
        shots=config.shots,
        chat_prompts=config.chat_prompts,
        trust_remote_code=config.trust_remote_code,
    )
