"""The list of commands: names, one line each, and where each one's screen is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A command as the overview lists it."""

    name: str
    summary: str
    panel: str

    @property
    def module(self) -> str:
        """The module that defines it."""
        return f"ogpsa_cli.commands.{self.name.replace('-', '_')}"


_START, _CHAIN, _BATCH, _LOOK = "Start here", "The chain, in order", "The chain as a whole", "Look at what there is"
COMMANDS: tuple[Entry, ...] = (
    Entry("quickstart", "Run the whole chain on a small embedded model: minutes, no download, no GPU.", _START),
    Entry("doctor", "Say what this machine has and what would not work on it.", _START),
    Entry("prepare-data", "Turn a data set (file, hub, registry) into what training reads.", _CHAIN),
    Entry("build-basis", "Estimate the directions that carry general ability.", _CHAIN),
    Entry("train-sft", "Fine-tune on safety answers while keeping off these directions.", _CHAIN),
    Entry("train-dpo", "Train on preference pairs while keeping off these directions.", _CHAIN),
    Entry("evaluate", "Measure safety and general ability, with intervals.", _CHAIN),
    Entry("report", "Put results side by side: table, gain, charts, one HTML page.", _CHAIN),
    Entry("run", "Run a recipe: a chain of these commands in one YAML file.", _BATCH),
    Entry("slurm", "Write a recipe as Slurm jobs that wait for each other, and submit them.", _BATCH),
    Entry("merge", "Repair a fine-tuned model by merging it with a safe one, layer by layer.", _CHAIN),
    Entry("inspect", "Show what an artifact is, what it was made from, whether it is intact.", _LOOK),
    Entry("chat", "Talk to a model, or to two side by side.", _LOOK),
    Entry("testbed", "Write the small embedded model to a directory, or retrain it.", _LOOK),
)
