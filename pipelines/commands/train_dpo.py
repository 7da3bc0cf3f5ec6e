"""The work of ``ogpsa train-dpo``."""

from __future__ import annotations

from pipelines.configs.train import TrainDpoConfig
from pipelines.core.making import Made
from pipelines.training import run as steps
from pipelines.training.dpo import check_dpo_options, make_trainer


def run(config: TrainDpoConfig) -> Made:
    """Train as ``config`` says, or find the run finished.

    Raises:
        OgpsaError: an input or option cannot be used, or training diverged.
    """
    return steps.run_training(config, task="preference", method="DPO", make_trainer=make_trainer)


def plan(config: TrainDpoConfig) -> list[tuple[str, str]]:
    """The plan that ``--dry-run`` shows, as pairs of name and text."""
    check_dpo_options(config)
    return steps.plan_training(config, task="preference")
