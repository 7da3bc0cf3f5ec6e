"""What the tests of merged adapters share: the options of a merge, and what it should find."""

from __future__ import annotations

from pathlib import Path

import torch

from pipelines.configs.merge import MergeConfig
from tests.reference import merge_plain as plain
from tests.reference.merge_inputs import factors, weights

TOKENS = torch.arange(12).reshape(2, 6)


def config(made, out, **options) -> MergeConfig:
    given = {"finetuned": made / "task", "safe": made / "safe", "unaligned": made / "unaligned", "out": out}
    merged = {**given, **options}
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in merged.items()}
    return MergeConfig(**texts)


def merged_factors(out):
    return factors(out / "model")


def deltas(found):
    return {name: plain.delta(*parts) for name, parts in found.items()}


def expected_rhos(made, task="task", aligned="base", unaligned="unaligned"):
    aligned, unaligned = weights(made / aligned), weights(made / unaligned)
    return {
        name: plain.rho(aligned[f"{name}.weight"], unaligned[f"{name}.weight"], D)
        for name, D in deltas(factors(made / task)).items()
    }


def middle(rhos):
    """A threshold that half of the layers are below, away from any of them."""
    ordered = sorted(rhos.values())
    at = max(range(len(ordered) // 3, 2 * len(ordered) // 3), key=lambda index: ordered[index] - ordered[index - 1])
    return (ordered[at - 1] + ordered[at]) / 2
