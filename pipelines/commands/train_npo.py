"""The work of ``ogpsa train-npo``."""

from __future__ import annotations

from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.core.making import Made
from pipelines.engine.unneeded import leave_out
from pipelines.training.finding import find_run


def run(config: TrainNpoConfig) -> Made:
    """Train as ``config`` says, or find the run finished.

    Raises:
        OgpsaError: an input or option cannot be used, or training diverged.
    """
    made = find_run(config, task="preference")
    if made is not None:
        return made
    leave_out(with_trl=True)
    from pipelines.training import run as steps
    from pipelines.training.npo import NPOConfig, make_trainer

    return steps.run_training(
        config, task="preference", method="NPO", arguments_class=NPOConfig, make_trainer=make_trainer
    )


def plan(config: TrainNpoConfig) -> list[tuple[str, str]]:
    """The plan that ``--dry-run`` shows, as pairs of name and text."""
    from pipelines.training import run as steps
    from pipelines.training.npo import NPOConfig

    return steps.plan_training(config, task="preference", arguments_class=NPOConfig)
