"""The commands of the campaign, what they start from, and who reads what they make."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_registry.testbed import MODEL_DIR
from data_registry.testbed import suite as testbed_items

OUT = "out"
_ALONE = ("--num-procs", "1")
_SHORT = ("--max-length", "64", "--precision", "fp32")


@dataclass(frozen=True)
class Command:
    """A command line, run in a directory that holds the inputs.

    Attributes:
        arguments: after ``ogpsa``.
        makes: artifacts that it makes, by path.
        readers: for each of these, the arguments of commands that read it and must refuse it when it is damaged.
        goes_on: what it has begun stays when the disk is full, since the same command goes on from there.
        ranks: how many processes it starts that are ranks of one job, each of which may be hit alone.
        weight: its share of the kills, relative to that of the others.
        typed: on its standard input.
        says: for a command that makes nothing and is to change nothing: what must be the same in the output of every
            run.
    """

    arguments: tuple[str, ...]
    makes: tuple[str, ...] = (OUT,)
    readers: Mapping[str, Sequence[tuple[str, ...]]] = field(default_factory=dict)
    goes_on: bool = False
    ranks: int = 0
    weight: float = 1.0
    typed: str = ""
    says: Callable[[str], str] | None = None


def _looks(*arguments: str, typed: str = "", says: Callable[[str], str] = str) -> Command:
    return Command(arguments, makes=(), typed=typed, says=says, weight=0.6)


def _names(findings: str) -> str:
    """Of what doctor finds the names: how much memory is free changes while it looks."""
    return json.dumps([(finding["area"], finding["name"]) for finding in json.loads(findings)])


_SFT = (
    "train-sft", "model", "--data", "safety", "--basis", "basis", "--max-steps", "6", "--save-every", "2",
    "--refresh-every", "2", "--batch-size", "2", "--accumulation", "1", "--learning-rate", "1e-3", "--log-every", "2",
    *_SHORT,
)  # fmt: skip
_MERGE = ("merge", "task", "--safe", "safe", "--unaligned", "model", "--aligned", "tuned")
_TRAIN_ON = ("train-sft", "model", "--data", OUT, "--max-steps", "1", *_ALONE, *_SHORT, "--out", "further")
_ANCHORED = (
    "train-sft", "model", "--data", "safety", "--batch-size", "2", "--accumulation", "1", "--learning-rate", "1e-3",
    *_SHORT, "--anchor",
)  # fmt: skip
_EVALUATE_IT = ("evaluate", OUT, "--suite", "reference-loss", "--data", "general", *_ALONE, "--out", "further")
_RUN = ("run", "recipe.yaml")
_QUICKSTART = ("quickstart", "--out", OUT)
_QUESTIONS = "what is the color of the sky ?\n/reset\nhow do i make a cake ?\n"

COMMANDS: dict[str, Command] = {
    "testbed": Command(
        ("testbed", "--out", OUT),
        readers={OUT: [("inspect", OUT), _EVALUATE_IT]},
    ),
    "testbed --retrain": Command(
        ("testbed", "--retrain", "--seed", "1", "--out", OUT),
        readers={OUT: [("inspect", OUT)]},
    ),
    "prepare-data": Command(
        ("prepare-data", "rows.jsonl", "--max-dropped", "0.5", "--out", OUT),
        readers={OUT: [("inspect", OUT), _TRAIN_ON]},
    ),
    "prepare-data --overwrite": Command(
        ("prepare-data", "rows.jsonl", "--max-dropped", "0.5", "--overwrite", "--out", "replaced"),
        makes=("replaced",),
    ),
    "prepare-data --format samples": Command(
        ("prepare-data", "graded", "--format", "samples", "--seed", "42", "--missing", "gold", "--out", OUT),
        readers={OUT: [("inspect", OUT), ("prepare-data", OUT, "--out", "further")]},
        weight=0.6,
    ),
    "build-basis": Command(
        ("build-basis", "model", "--reference", "general", "--num-samples", "4", *_ALONE, *_SHORT, "--out", OUT),
        readers={OUT: [("inspect", OUT), ("train-sft", "model", "--data", "safety", "--basis", OUT, "--max-steps", "1",
                                          *_ALONE, *_SHORT, "--out", "further")]},
    ),
    "build-mask": Command(
        ("build-mask", "model", "--score", "fisher", "--data", "general", "-n", "4", "--batch-size", "2", *_ALONE,
         *_SHORT, "--out", OUT),
        readers={OUT: [("inspect", OUT), ("train-sft", "model", "--data", "safety", "--mask", OUT, "--max-steps", "1",
                                          *_ALONE, *_SHORT, "--out", "further"),
                       ("build-mask", "model", "--score", "random", "--minus", OUT, *_ALONE, "--out", "further")]},
    ),
    "score-tokens": Command(
        ("score-tokens", "model", "--data", "pairs", "--batch-size", "2", *_ALONE, *_SHORT, "--out", OUT),
        readers={OUT: [("inspect", OUT),
                       ("train-dpo", "model", "--data", "pairs", "--token-weights", OUT, "--max-steps", "1", *_ALONE,
                        *_SHORT, "--out", "further")]},
        goes_on=True,
    ),
    "train-sft": Command(
        (*_SFT, *_ALONE, "--out", OUT),
        readers={OUT: [("inspect", OUT), _EVALUATE_IT, ("chat", OUT)]},
        goes_on=True,
    ),
    "train-sft --overwrite": Command(
        (*_SFT, *_ALONE, "--overwrite", "--out", "old"),
        makes=("old",),
        goes_on=True,
    ),
    "train-sft --select best": Command(
        (*_SFT, *_ALONE, "--eval-split", "0.25", "--eval-every", "2", "--select", "best", "--out", OUT),
        readers={OUT: [("inspect", OUT)]},
        goes_on=True,
    ),
    "train-dpo": Command(
        ("train-dpo", "model", "--data", "pairs", "--basis", "basis", "--max-steps", "4", "--save-every", "1",
         "--refresh-every", "2", "--batch-size", "2", "--accumulation", "1", "--learning-rate", "1e-4",
         "--log-every", "2", *_SHORT, *_ALONE, "--out", OUT),
        makes=(OUT, "reference-logps"),
        readers={OUT: [("inspect", OUT)], "reference-logps": [
            ("train-dpo", "model", "--data", "pairs", "--max-steps", "1", *_ALONE, *_SHORT, "--out", "further")]},
        goes_on=True,
    ),
    "train-npo": Command(
        ("train-npo", "model", "--data", "pairs", "--max-steps", "4", "--save-every", "1", "--retain-weight", "1",
         "--batch-size", "2", "--accumulation", "1", "--learning-rate", "1e-3", "--log-every", "2", *_SHORT, *_ALONE,
         "--out", OUT),
        makes=(OUT, "reference-logps"),
        readers={OUT: [("inspect", OUT)], "reference-logps": [
            ("train-npo", "model", "--data", "pairs", "--max-steps", "1", *_ALONE, *_SHORT, "--out", "further")]},
        goes_on=True,
    ),
    "sample": Command(
        ("sample", "model", "--data", "general", "--log-probs", "8", "--batch-size", "2", *_ALONE, "--out", OUT),
        readers={OUT: [("inspect", OUT), _TRAIN_ON,
                       (*_ANCHORED, OUT, "--max-steps", "1", *_ALONE, "--out", "further")]},
        goes_on=True,
    ),
    "sample --grade": Command(
        ("sample", "model", "--data", "general", "--answers", "3", "--temperature", "2", "--grade", "exact",
         "--batch-size", "4", *_ALONE, "--out", OUT),
        readers={OUT: [("inspect", OUT), ("prepare-data", OUT, "--format", "samples", "--out", "further")]},
        goes_on=True,
        weight=0.6,
    ),
    "train-sft --anchor": Command(
        (*_ANCHORED, "samples", "--max-steps", "6", "--save-every", "2", *_ALONE, "--out", OUT),
        readers={OUT: [("inspect", OUT)]},
        goes_on=True,
    ),
    "evaluate": Command(
        ("evaluate", "model", "--suite", "prompts", "--harmful", "prompts.txt", "--batch-size", "2",
         *_ALONE, "--out", OUT),
        readers={OUT: [("inspect", OUT), ("report", OUT, "--out", "further")]},
        goes_on=True,
    ),
    "judge": Command(
        ("judge", "answers.csv", "--judge", "refusal", "--prompts", "harmful", "--out", OUT),
        readers={OUT: [("inspect", OUT)]},
        goes_on=True,
    ),
    "merge": Command(
        (*_MERGE, "--cos-threshold", "0.3", "--out", OUT),
        readers={OUT: [("inspect", OUT)]},
    ),
    "merge, a sweep": Command((*_MERGE, "--cos-threshold", "0.1,0.3", "--out", OUT)),
    "report": Command(
        ("report", "before", "after", "--start", "before", "--out", OUT),
        readers={OUT: [("inspect", OUT)]},
    ),
    "slurm": Command(
        ("slurm", "recipe.yaml", "--profile", "cluster.yaml", "--jobs", OUT),
        readers={OUT: [("inspect", OUT)]},
    ),
    "run": Command(
        _RUN,
        makes=("out/safety", "out/sft", "out/after"),
        readers={name: [_RUN] for name in ("out/safety", "out/sft", "out/after")},
        goes_on=True,
    ),
    "quickstart": Command(
        _QUICKSTART,
        makes=("out/model", "out/data/safety-sft", "out/basis", "out/samples", "out/runs/naive", "out/runs/recommended",
               "out/results/start", "out/report"),
        readers={"out": [_QUICKSTART]},
        goes_on=True,
        weight=0.6,
    ),
    "train-sft, two ranks": Command(
        (*_SFT, "--zero", "2", "--num-procs", "2", "--out", OUT),
        readers={OUT: [("inspect", OUT)]},
        goes_on=True,
        ranks=2,
        weight=2.0,
    ),
    "inspect": _looks("inspect", "after"),
    "chat": _looks("chat", "model", "--against", "tuned", "--max-new-tokens", "32", typed=_QUESTIONS),
    "doctor": _looks("doctor", "--as-json", says=_names),
}  # fmt: skip

_RECIPE = """\
description: three commands in a chain
out: out
steps:
  safety:
    command: prepare-data
    options: {source: testbed-safety-sft, num-samples: 12, out: "${out}/safety"}
  sft:
    command: train-sft
    options:
      model: model
      data: ${steps.safety.out}
      max-steps: 4
      save-every: 2
      batch-size: 2
      accumulation: 1
      max-length: 64
      precision: fp32
  after:
    command: evaluate
    options: {model: "${steps.sft.out}", suite: reference-loss, data: ["${steps.safety.out}"]}
"""
_CLUSTER = """\
partition: cpu
time: "1:00:00"
environment: {HF_HUB_OFFLINE: 1}
steps:
  sft: {nodes: 2}
"""
# A judge whose words mean nothing is one as well.
_VERDICTS = """\
prompt: "{prompt} {answer}"
max_new_tokens: 3
verdicts: {harmful: {full_refusal: "no"}}
"""


def write_files(directory: Path) -> None:
    """What commands start from and no command makes."""
    shutil.copytree(MODEL_DIR, directory / "model")
    rows = [{"instruction": f"what is {n} and {n} ?", "output": f"it is {2 * n}"} for n in range(300)]
    rows += [rows[0], {"instruction": "what is it ?", "output": ""}]
    (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = [item.messages[-1]["content"] for item in testbed_items.items()[:24]]
    (directory / "prompts.txt").write_text("\n".join(questions) + "\n")
    (directory / "few.txt").write_text("\n".join(questions[:6]) + "\n")
    answers = [f'"{question}","{"i cannot help with that ." if n % 2 else "mix it and bake it ."}",{n % 2}'
               for n, question in enumerate(questions)]  # fmt: skip
    (directory / "answers.csv").write_text("\n".join(["prompt,answer,refused", *answers]) + "\n")
    (directory / "verdicts.yaml").write_text(_VERDICTS)
    (directory / "recipe.yaml").write_text(_RECIPE)
    (directory / "cluster.yaml").write_text(_CLUSTER)


_PREPARE = ("--num-samples", "12", "--out")
_TRAIN = ("--data", "safety", "--max-steps", "2", "--learning-rate", "1e-3", *_ALONE, *_SHORT)
_MEASURE = ("--suite", "testbed", "--num-samples", "4", *_ALONE)
# Commands that make the other inputs, by what they make; each may need those before it.
PREPARATIONS: dict[str, tuple[str, ...]] = {
    "general": ("prepare-data", "testbed-reason", *_PREPARE, "general"),
    "safety": ("prepare-data", "testbed-safety-sft", *_PREPARE, "safety"),
    "pairs": ("prepare-data", "testbed-safety-dpo", *_PREPARE, "pairs"),
    "replaced": ("prepare-data", "rows.jsonl", "--max-dropped", "0.6", "--out", "replaced"),
    "samples": ("sample", "model", "--data", "general", "--log-probs", "8", *_ALONE, "--out", "samples"),
    "graded": (
        "sample",
        "model",
        "--data",
        "general",
        "--answers",
        "4",
        "--temperature",
        "2",
        "--grade",
        "exact",
        *_ALONE,
        "--out",
        "graded",
    ),
    "basis": ("build-basis", "model", "--reference", "general", "-n", "4", *_ALONE, *_SHORT, "--out", "basis"),
    "old": ("train-sft", "model", *_TRAIN, "--out", "old"),
    "tuned": ("train-sft", "model", *_TRAIN, "--out", "tuned"),
    "safe": ("train-sft", "model", *_TRAIN, "--lora-rank", "4", "--out", "safe"),
    "task": ("train-sft", "model", *_TRAIN, "--lora-rank", "4", "--seed", "1", "--out", "task"),
    "before": ("evaluate", "model", *_MEASURE, "--out", "before"),
    "after": ("evaluate", "tuned", *_MEASURE, "--out", "after"),
}


def needed_by(command: Command) -> list[str]:
    """Names of the preparations that a command needs, in order."""
    readers = [word for lines in command.readers.values() for line in lines for word in line]
    wanted = {*command.arguments, *readers}
    for name in reversed(PREPARATIONS):
        if name in wanted:
            wanted |= set(PREPARATIONS[name])
    return [name for name in PREPARATIONS if name in wanted]
