"""The suites that a configuration of ``ogpsa evaluate`` asks for, and the judge that they need."""

from __future__ import annotations

from data_registry.core.errors import ConfigError
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.evaluation.answering.vllm_backend import check_installed
from pipelines.evaluation.contract.judge import Judge
from pipelines.evaluation.contract.suite import AnySuite, GeneratingSuite, SuiteRequest
from pipelines.evaluation.judges.choosing import create_judge
from pipelines.evaluation.registry import create_suites
from pipelines.evaluation.suites.prompts import PromptSuite


def requested_suites(config: EvaluateConfig) -> tuple[list[AnySuite], Judge | None]:
    """The suites, and the judge where one of them needs it.

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
    judged = [suite for suite in suites if isinstance(suite, PromptSuite)]
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
    judge = create_judge(config) if judged else None
    for suite in judged:
        assert judge is not None
        suite.check_judge(judge)
    return suites, judge


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
    )
