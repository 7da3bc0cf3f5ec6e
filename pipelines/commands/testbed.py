"""The work of ``ogpsa testbed``: write the testbed's base model to a directory, or train it from nothing."""

from __future__ import annotations

from pipelines.configs.tools import TestbedConfig
from pipelines.core.making import Made, Wanted, make
from pipelines.training.testbed_model import write_testbed
from pipelines.training.testbed_recipe import DEFAULT_STEPS, KIND


def run(config: TestbedConfig) -> Made:
    """Write the shipped model, or train it from nothing, or find it done.

    Raises:
        OgpsaError: the directory cannot be written, or holds something else.
    """
    wanted = Wanted(config.out, KIND, config, overwrite=config.overwrite)
    return make(wanted, lambda writer: write_testbed(writer, seed=config.seed if config.retrain else None))


def plan(config: TestbedConfig) -> list[tuple[str, str]]:
    """The plan that ``--dry-run`` shows, as pairs of name and text."""
    if config.retrain:
        return [("model", f"trained from nothing in {DEFAULT_STEPS:,} steps, seed {config.seed}")]
    return [("model", "the shipped one, copied")]
