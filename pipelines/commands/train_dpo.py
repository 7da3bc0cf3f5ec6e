"""The work of ``ogpsa train-dpo``."""

from __future__ import annotations

from pipelines.configs.train import TrainDpoConfig
from pipelines.core.making import Made
from pipelines.engine.unneeded import leave_out
from pipelines.training.finding import find_run


def run(config: TrainDpoConfig) -> Made:
    """Train as ``config`` says, or find the run finished.

    Raises:
        OgpsaError: an input or option cannot be used, or training diverged.
    """
    made = find_run(config, task="preference")
    if made is not None:
        return made
    leave_out(with_trl=True)
    from trl import DPOConfig

    from pipelines.training import run as steps
    from pipelines.training.dpo import make_trainer
    from pipelines.training.losses import check_loss

    check_loss(config)
    return steps.run_training(
        config, task="preference", method="DPO", arguments_class=DPOConfig, make_trainer=make_trainer
    )


def plan(config: TrainDpoConfig) -> list[tuple[str, str]]:
    """The plan that ``--dry-run`` shows, as pairs of name and text."""
    from trl import DPOConfig

    from pipelines.training import run as steps
    from pipelines.training.losses import check_loss

    check_loss(config)
    return steps.plan_training(config, task="preference", arguments_class=DPOConfig)
