"""Options of the commands for looking around and trying things out: inspect, doctor, clean, quickstart, testbed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pipelines.configs.common import OutputConfig, seed_option
from pipelines.core.config import CommandConfig, option


class InspectConfig(CommandConfig):
    """Show what an artifact is, what it was made from, and whether it is intact.

    Works on everything that ogpsa writes and on model directories. The exit code is 3 when a file is missing or was
    changed after it was written.
    """

    examples: ClassVar[Sequence[str]] = (
        "ogpsa inspect runs/sft",
        "ogpsa inspect runs/sft --fast                # sizes only: quick on large models",
        "ogpsa inspect basis --as-json",
    )

    path: Path = option(..., "A data set, basis, run or results of ogpsa, or a model directory.", positional=True)
    fast: bool = option(False, "Compare the sizes of files only, not their contents.")
    as_json: bool = option(False, "Print the findings as JSON.")


class DoctorConfig(CommandConfig):
    """Say what this machine has, what would not work on it, and why."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa doctor",
        "ogpsa doctor --as-json > machine.json        # to attach to a report",
    )

    as_json: bool = option(False, "Print the findings as JSON.")


class CleanConfig(CommandConfig):
    """List and remove what interrupted and superseded runs left behind.

    Looks beside PATH and in all folders below it, and removes what is of no use to anybody.
    Unfinished work, from which the same command could go on, is removed with --yes, or if a
    question on the terminal is answered with y. What a running command uses, and what is
    finished, is never touched.
    """

    examples: ClassVar[Sequence[str]] = (
        "ogpsa clean runs --dry-run                   # what lies there, and how large it is",
        "ogpsa clean runs/sft                         # beside and in the place of one artifact",
        "ogpsa clean runs --yes                       # unfinished runs too",
    )

    path: Path = option(..., "The place of an artifact, finished or not, or a folder of many.", positional=True)
    yes: bool = option(False, "Remove unfinished work too, without a question.")
    dry_run: bool = option(False, "List what lies there and stop.", runtime=True)


class QuickstartConfig(OutputConfig):
    """Run the whole chain on the embedded testbed and show what projection buys.

    Prepares data, builds a basis, trains without it and with it (in gradient and in update space), evaluates, and
    prints one table and the commands that it ran. Takes two minutes on two CPU cores and needs no GPU and no network.
    """

    examples: ClassVar[Sequence[str]] = (
        "ogpsa quickstart",
        "ogpsa quickstart --seed 1 --out demo",
    )

    out: Path = option(
        Path("quickstart"), "Directory for everything that is made.", panel="Output", runtime=True, short="o"
    )
    seed: int = seed_option(0, "Seed of data order in training and of the bootstrap.")


class TestbedConfig(OutputConfig):
    """Write the embedded testbed model to a directory, or retrain it from nothing.

    It is a small chat model in Hugging Face format that knows a few skills and refuses nothing: something to try every
    command on in seconds.
    """

    examples: ClassVar[Sequence[str]] = (
        "ogpsa testbed --out model",
        "ogpsa testbed --retrain --seed 1 --out model",
    )

    retrain: bool = option(False, "Train the model from nothing (some minutes) instead of copying the shipped one.")
    seed: int = seed_option(0, "Seed of the retraining.", needs="retrain")
