"""Judges by name; any other name is that of a judge model, a directory or a repository of the hub."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from data_registry.core.errors import ConfigError
from pipelines.evaluation.contract.verdict import Judge

BUILT_IN: Final = "refusal"
JUDGES: Final[Mapping[str, str]] = {
    BUILT_IN: "pipelines.evaluation.judges.refusal.judge:RefusalJudge",
}
"""The class of each judge that is not a model, as ``module:name``; it is imported when it is asked for."""


def create_judge(
    name: str, judge_format: str | None, *, batch_size: int, precision: str, folder: Path, trust_remote_code: bool
) -> Judge:
    """The judge of a name; the weights of a judge model are not loaded yet.

    Args:
        name: the name of a judge, or of a judge model.
        judge_format: how a judge model is asked and read; None: its name or its classes tell.
        batch_size: most answers that a judge model reads at a time.
        precision: ``fp32`` or ``bf16``.
        folder: where a judge model's verdicts are kept while it is at work.
        trust_remote_code: run code that the repository of a judge model brings.

    Raises:
        ConfigError: its format is unknown, or one is given for a judge that is no model.
        InputError: there is no such model.
    """
    if name in JUDGES:
        if judge_format is not None:
            raise ConfigError("--judge-format is for judge models: add --judge PATH")
        return named_judge(name)
    from pipelines.evaluation.judges.models import JudgeOptions, create_model_judge

    options = JudgeOptions(batch_size, precision, folder, trust_remote_code)
    return create_model_judge(name, judge_format, options)


def named_judge(name: str) -> Judge:
    """One of ``JUDGES``."""
    module, _, target = JUDGES[name].partition(":")
    judge: Judge = getattr(importlib.import_module(module), target)()
    return judge
