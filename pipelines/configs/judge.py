"""Options of ``ogpsa judge``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import field_validator

from data_registry.core.documents import suggest
from pipelines.configs.common import OutputConfig, Precision
from pipelines.core.config import option

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "prompt": (
        *("prompt", "question", "instruction", "request", "query", "user_query", "user_prompt", "goal", "behavior"),
        *("behaviour", "input", "user"),
    ),
    "answer": (
        *("answer", "response", "completion", "output", "generation", "model_answer", "model_response"),
        *("model_output", "reply", "assistant"),
    ),
    "label": (
        *("label", "final_label", "human_label", "gold_label", "gold", "refusal_label", "human_judgement"),
        *("human_judgment", "refusal", "refused", "is_refusal"),
    ),
    "group": ("group", "prompt_group", "prompt_label", "prompt_harm_label"),
    "id": ("id", "prompt_id", "row_id", "idx"),
}
"""The columns that are looked for, by what they hold; capitals, blanks and underscores do not matter."""
CLASSES: Final = ("full_compliance", "full_refusal", "partial_refusal")
BUILT_IN: Final = "refusal"


class JudgeConfig(OutputConfig):
    """Judge answers made elsewhere: verdicts, figures with intervals, and agreement with labels."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa judge answers.jsonl --out judged/mine",
        "ogpsa judge answers.csv --set columns.answer=completion --prompts harmful --out judged/mine",
        "ogpsa judge answers.parquet --judge refusal --judge allenai/wildguard --prompts harmful --out judged/two",
        "ogpsa judge answers.csv --set labels.evasive=partial_refusal --out judged/labelled",
    )

    source: Path = option(
        ...,
        "Answers: a file (csv, json, jsonl, parquet; also .gz) with columns for prompts and answers, and for "
        "people's labels if there are any.",
        positional=True,
        runtime=True,
    )
    columns: dict[str, str] = option(
        {},
        "Columns that are not called as usual, as --set columns.answer=completion; there are prompt, answer, label, "
        "group (harmful or harmless) and id.",
        panel="Reading",
    )
    labels: dict[str, str] = option(
        {},
        "What labels mean that are not understood, as --set labels.evasive=partial_refusal; there are "
        f"{', '.join(CLASSES)}.",
        panel="Reading",
        needs="!ignore_labels",
    )
    ignore_labels: bool = option(False, "Compare with no labels, whatever columns there are.", panel="Reading")
    prompts: Literal["harmful", "harmless"] | None = option(
        None,
        "What all prompts are, where no column says it: figures of safety, and most judge models, need to know.",
        panel="Reading",
    )

    judge: list[str] = option(
        [BUILT_IN],
        "Judge: refusal (built in, needs no GPU), or a judge model: a directory or hub id; repeat to compare several.",
        panel="Judging",
    )
    judge_format: str | None = option(
        None,
        "How judge models are asked and read: harmbench, wildguard, llama-guard, refusal-classes, harm-classes, or a "
        "YAML file; by default told from their names or classes.",
        panel="Judging",
    )
    batch_size: int = option(64, "Answers that a judge model reads at a time.", panel="Judging", ge=1, runtime=True)
    num_procs: int | None = option(
        None,
        "Processes to start on this machine, one copy of a judge model each; by default one per GPU, or one without "
        "GPUs. Ignored under torchrun and srun.",
        panel="Processes",
        runtime=True,
        ge=1,
    )
    precision: Precision = option("fp32", "Arithmetic of judge models: fp32 or bf16.", panel="Model")
    trust_remote_code: bool = option(
        False, "Run Python code that the repository of a judge model brings.", panel="Model"
    )

    @field_validator("judge")
    @classmethod
    def _each_once(cls, judges: list[str]) -> list[str]:
        if not judges or not all(name.strip() for name in judges):
            raise ValueError("names no judge: give refusal, a directory or a hub id")
        twice = sorted({name for name in judges if judges.count(name) > 1})
        if twice:
            raise ValueError(f"names '{twice[0]}' twice")
        return judges

    def problems(self) -> list[str]:
        """What is misspelt, and what has nothing to act on."""
        problems = [*super().problems()]
        problems += [
            f"--set columns.{name}: there is no such field{suggest(name, COLUMNS)}; there are {', '.join(COLUMNS)}"
            for name in self.columns
            if name not in COLUMNS
        ]
        problems += [
            f"--set columns.{name}: name a column" for name, column in self.columns.items() if not column.strip()
        ]
        problems += [
            f"--set labels.{word}={given}: it must be one of {', '.join(CLASSES)}{suggest(given, CLASSES)}"
            for word, given in self.labels.items()
            if given not in CLASSES
        ]
        if self.ignore_labels and "label" in self.columns:
            problems.append("--ignore-labels does not go with --set columns.label: leave one of them out")
        if self.prompts is not None and "group" in self.columns:
            problems.append("--prompts does not go with --set columns.group: leave one of them out")
        if self.judge == [BUILT_IN]:
            fields = type(self).model_fields
            problems += [
                f"--{name.replace('_', '-')} is for judge models: add --judge PATH"
                for name in ("judge_format", "batch_size", "num_procs", "precision", "trust_remote_code")
                if getattr(self, name) != fields[name].default
            ]
        return problems
