"""A sweep of merges by their weights: its options as ``ogpsa evaluate`` has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pipelines.configs.common import split_numbers
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.core.config import resolve

TENTHS: Final = tuple(round(0.1 * number, 1) for number in range(11))
# What a sweep settles itself, or has no use for.
_SETTLED: Final = (
    "model", "out", "suite", "revision", "rejudge", "baseline", "download_only", "overwrite", "dry_run", "num_procs",
    "backend", "name",
)  # fmt: skip


def read_shares(value: Any) -> Any:
    """The shares of the fine-tuned model: numbers between commas, or ``tenths`` for 0, 0.1, ... 1."""
    if value in ("tenths", ["tenths"]):
        return list(TENTHS)
    return split_numbers(value)


def share_problems(shares: list[float]) -> list[str]:
    """What is wrong with the shares of a sweep."""
    problems = []
    if not all(0 <= share <= 1 for share in shares):
        problems.append(f"--sweep takes shares of the fine-tuned model from 0 to 1, or 'tenths', not {shares}")
    if len(set(shares)) < len(shares):
        problems.append("--sweep names a share twice")
    return problems


def evaluation_options(finetuned: str, out: Path, suites: list[str], options: Mapping[str, Any]) -> EvaluateConfig:
    """How each mix of a sweep is measured.

    Args:
        finetuned: the fine-tuned model.
        out: the directory of the sweep.
        suites: the suites.
        options: further options of ``ogpsa evaluate`` by name.

    Raises:
        ConfigError: the options are not valid, or are settled by the sweep itself.
    """
    from data_registry.core.documents import field_names
    from data_registry.core.errors import ConfigError

    try:
        values = field_names(dict(options))
    except ValueError as error:
        raise ConfigError(f"--set evaluation: option {error}") from error
    settled = [name for name in _SETTLED if name in values]
    if settled:
        raise ConfigError([f"--set evaluation.{name}: a sweep settles it itself; leave it out" for name in settled])
    values |= {"model": finetuned, "out": str(out), "suite": suites}
    return resolve(EvaluateConfig, values=values)
