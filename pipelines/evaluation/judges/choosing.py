"""The judge that the options of a command name, and where it works."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from data_registry.core.errors import ConfigError
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.core.artifact import partial_path
from pipelines.evaluation.contract.judge import Judge
from pipelines.evaluation.judges.builtin import NAME as BUILT_IN
from pipelines.evaluation.judges.builtin import RefusalJudge

JUDGING: Final = "judging"
"""Folder of the unfinished artifact where a judge model's verdicts are kept as they are made."""


def create_judge(config: EvaluateConfig) -> Judge:
    """The judge that the options name.

    Raises:
        ConfigError: its format is unknown.
        InputError: there is no such model.
    """
    if config.judge == BUILT_IN:
        if config.judge_format is not None:
            raise ConfigError("--judge-format is for judge models: add --judge PATH")
        return RefusalJudge()
    from pipelines.evaluation.judges.models import JudgeOptions, create_model_judge

    # Without --out nothing is judged: the judge is only looked at.
    folder = work_folder(config, JUDGING) if config.out is not None else Path(JUDGING)
    options = JudgeOptions(config.batch_size, config.precision, folder, config.trust_remote_code)
    return create_model_judge(config.judge, config.judge_format, options)


def work_folder(config: EvaluateConfig, part: str) -> Path:
    """A folder of the unfinished artifact; the same whenever the same command runs, so that it can go on."""
    assert config.out is not None
    return partial_path(config.out, config) / part
