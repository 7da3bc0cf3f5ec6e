"""Preference pairs with a column of right solutions, and commands that score them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets

from pipelines.commands import score_tokens
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.score_tokens import ScoreTokensConfig
from pipelines.core.artifact import write_artifact
from pipelines.core.config import resolve
from pipelines.token_weights.opening import TokenWeights, open_token_weights


def make_rows(path: Path, rows: Sequence[dict[str, Any]], task: str) -> Path:
    """A prepared data set of given rows."""
    with write_artifact(path, "dataset", PrepareDataConfig(source="rows", out=path), []) as writer:
        datasets.Dataset.from_list(list(rows)).save_to_disk(str(writer.path))
        writer.summary["task"] = task
    return path


def user(text: str) -> dict[str, str]:
    """A message of the user."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    """A message of the assistant."""
    return {"role": "assistant", "content": text}


def pair(question: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    """A preference pair."""
    return {"prompt": [user(question)], "chosen": [assistant(chosen)], "rejected": [assistant(rejected)], **more}


def weights(model: Path, data: Path, out: Path, **options: Any) -> TokenWeights:
    """What ``score-tokens`` makes."""
    flags = {"model": str(model), "data": str(data), "out": str(out), "precision": "fp32", **options}
    return open_token_weights(score_tokens.run(resolve(ScoreTokensConfig, flags=flags)).path, hashes=True)


def lines(found: TokenWeights) -> list[dict[str, Any]]:
    """The lines of the artifact."""
    rows: list[dict[str, Any]] = found.table.to_pylist()
    return rows
