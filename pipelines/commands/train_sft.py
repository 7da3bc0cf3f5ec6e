"""The work of ``ogpsa train-sft``."""

from __future__ import annotations

from pipelines.configs.train import TrainSftConfig
from pipelines.core.making import Made
from pipelines.engine.unneeded import leave_out
from pipelines.training.finding import find_run


def run(config: TrainSftConfig) -> Made:
    """Train as ``config`` says, or find the run finished.

    Raises:
        OgpsaError: an input or option cannot be used, or training diverged.
    """
    made = find_run(config, task="sft")
    if made is not None:
        return made
    leave_out(with_trl=True)
    from trl import SFTConfig

    from pipelines.training import run as steps
    from pipelines.training.sft import make_trainer

    return steps.run_training(config, task="sft", method="SFT", arguments_class=SFTConfig, make_trainer=make_trainer)


def plan(config: TrainSftConfig) -> list[tuple[str, str]]:
    """The plan that ``--dry-run`` shows, as pairs of name and text."""
    from trl import SFTConfig

    from pipelines.training import inputs
    from pipelines.training import run as steps
    from pipelines.training.data.sft import sft_data_plan

    return steps.plan_training(
        config,
        task="sft",
        arguments_class=SFTConfig,
        data_plan=lambda settled, source: sft_data_plan(
            settled, inputs.load_training_tokenizer(settled, source), inputs.training_bounds(settled, source)
        ),
    )
