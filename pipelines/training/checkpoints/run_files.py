"""The places of files in the directory of a run that is being made."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipelines.core.job import barrier, is_main

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"

# Files that grow while a run goes on: a checkpoint has them as they were then, so that no line is lost or doubled.
GROWING_FILES = (METRICS_FILE, SAMPLES_FILE)

LAYERS_FILE = "layers.parquet"
PLOTS_FOLDER = "plots"

# The best weights so far, in the directory of the run being made; hidden, because they are not part of the result.
BEST_FOLDER = ".best"

WORK_FOLDER = "trainer"


def work_directory(partial: Path) -> Path:
    """An empty directory for the trainer's own output inside the run being made."""
    directory = partial / WORK_FOLDER
    if is_main():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    barrier()
    return directory
