"""Token weights made by hand for tests of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipelines.configs import tools
from pipelines.core.artifact import write_artifact
from pipelines.token_weights.description import KIND, TokenWeightsDescription
from pipelines.token_weights.storage import WeightedAnswer, write_token_weights

Answers = Sequence[tuple[Sequence[int], Sequence[float]]]


def store(path: Path, sides: Mapping[str, Answers]) -> Path:
    """An artifact with the tokens and the weights of the answers of each side."""
    numbers = [weight for answers in sides.values() for _, weights in answers for weight in weights]
    description = TokenWeightsDescription(
        rule="ratio", map="complement", threshold=None, top=None, order=None, sides=list(sides), model="m", against="n",
        tokenizer_hash="a", template_hash="b", max_length=64, drop_too_long=False,
        num_rows=max(len(answers) for answers in sides.values()), num_tokens=len(numbers),
        share_nonzero=float(np.mean(np.array(numbers) != 0)), score_quantiles={}, first=[],
    )  # fmt: skip
    lines = [
        WeightedAnswer(row, side, list(ids), np.zeros(len(ids), np.float32), np.array(weights, np.float32))
        for side, answers in sides.items()
        for row, (ids, weights) in enumerate(answers)
    ]

    with write_artifact(path, KIND, tools.TestbedConfig(out=path), []) as writer:
        write_token_weights(writer.path, description, lines)
    return path
