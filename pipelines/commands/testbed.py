"""Recipe of ``ogpsa testbed``: write the testbed's base model to a directory, or train it from nothing."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from data_registry.core.manifest import Manifest, read_manifest
from data_registry.testbed import MODEL_DIR
from pipelines.configs.tools import TestbedConfig
from pipelines.core.artifact import find_finished, write_artifact
from pipelines.core.progress import Progress
from pipelines.training.pretraining import DEFAULT_STEPS, KIND, RECIPE_FILE, retrain


@dataclass(frozen=True)
class TestbedResult:
    """Where the model lies, its manifest, and whether nothing had to be done."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    path: Path
    manifest: Manifest
    up_to_date: bool


def run(config: TestbedConfig) -> TestbedResult:
    """Write the shipped model, or train it from nothing, or find it done.

    Raises:
        OgpsaError: the directory cannot be written, or holds something else.
    """
    finished = find_finished(config.out, KIND, config, [], overwrite=config.overwrite)
    if finished is not None:
        return TestbedResult(config.out, finished, up_to_date=True)
    with write_artifact(config.out, KIND, config, [], overwrite=config.overwrite) as writer:
        source = MODEL_DIR
        if config.retrain:
            source = writer.path / "trained"
            with Progress("training", total=DEFAULT_STEPS, unit="steps") as progress:
                retrain(
                    source, config.seed, DEFAULT_STEPS, progress=lambda _, loss: progress.advance(figures=f"{loss:.3f}")
                )
        for file in sorted(source.iterdir()):
            if file.is_file():
                shutil.copyfile(file, writer.path / file.name)
        if config.retrain:
            shutil.rmtree(source)
        writer.summary = json.loads((writer.path / RECIPE_FILE).read_text(encoding="utf-8"))
    return TestbedResult(config.out, read_manifest(config.out), up_to_date=False)


def plan(config: TestbedConfig) -> list[tuple[str, str]]:
    """What would be done, for ``--dry-run``."""
    if config.retrain:
        return [("model", f"trained from nothing in {DEFAULT_STEPS:,} steps, seed {config.seed}")]
    return [("model", "the shipped one, copied")]
