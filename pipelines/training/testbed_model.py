"""The testbed's base model as an artifact, copied as it is shipped or trained from nothing."""

from __future__ import annotations

import json
import shutil

from data_registry.testbed import MODEL_DIR
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.progress import Progress
from pipelines.training.testbed_recipe import DEFAULT_STEPS, RECIPE_FILE


def write_testbed(writer: ArtifactWriter, *, seed: int | None) -> None:
    """Fill the artifact of a testbed model.

    Args:
        writer: the writer of the artifact.
        seed: the seed for training from nothing; None to copy the shipped model.
    """
    if seed is None:
        for file in sorted(MODEL_DIR.iterdir()):
            if file.is_file():
                shutil.copyfile(file, writer.path / file.name)
    else:
        from pipelines.training.pretraining import retrain

        with Progress("training", total=DEFAULT_STEPS, unit="steps") as progress:
            retrain(writer.path, seed, DEFAULT_STEPS, progress=lambda _, loss: progress.advance(figures=f"{loss:.3f}"))
    writer.summary = json.loads((writer.path / RECIPE_FILE).read_text(encoding="utf-8"))
