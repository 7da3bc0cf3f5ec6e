"""Options of ``ogpsa sample``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pipelines.configs.common import COPIES_HELP, OutputConfig, Precision, seed_option
from pipelines.core.config import option


class SampleConfig(OutputConfig):
    """Let a model answer the prompts of a prepared data set, and keep its own answers as a data set."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa sample MODEL --data data/general --out samples/general",
        "ogpsa sample MODEL --data data/general --log-probs 64 --precision bf16 --num-procs 8 --out samples/general",
        "ogpsa sample MODEL --data data/gsm8k --answers 4 --temperature 1 --top-p 0.95 --out samples/gsm8k",
        "ogpsa sample MODEL --data data/gsm8k --answers 10 --temperature 0.7 --grade number --out samples/graded",
        "ogpsa sample MODEL --data lookalikes-train --log-probs 64 --out samples/lookalikes",
        "ogpsa train-sft MODEL --data data/safety --anchor samples/general --out runs/anchored",
    )

    model: str = option(..., "Model: a directory, a hub id, or a run of ogpsa.", positional=True, runtime=True)
    data: Path = option(
        ..., "Prepared data set, of which each row's conversation is answered anew from before its last answer; or a "
        "prompt set of the registry by name, such as lookalikes-train.",
        short="d", runtime=True,
    )  # fmt: skip
    num_samples: int | None = option(None, "At most this many prompts, drawn with --seed.", short="n", ge=1)
    seed: int = seed_option(0, "Seed of the draw and of sampling.")
    batch_size: int = option(64, "Rows of one forward pass.", short="b", ge=1, runtime=True)

    answers: int = option(
        1, "Answers to each prompt, each with its own seed.", panel="Answers", needs="temperature", off=1, ge=1
    )
    max_new_tokens: int = option(256, "Longest answer in tokens.", panel="Answers", ge=1)
    temperature: float = option(0.0, "Temperature of sampling; 0 is greedy.", panel="Answers", off=0.0, ge=0)
    top_p: float = option(
        1.0, "Sample from this share of probability.", panel="Answers", needs="temperature", gt=0, le=1
    )
    backend: Literal["transformers", "vllm"] = option(
        "transformers", "What makes answers: transformers, or vllm where it is installed.", panel="Answers"
    )
    log_probs: int = option(
        0,
        "Also store the log-probabilities of the model's K most likely tokens at every place of its answers, and that "
        "of all others together; 0 stores none.",
        panel="Answers",
        ge=0,
    )

    grade: Literal["none", "exact", "number", "refusal"] = option(
        "none",
        "Grade answers by those of the data set. exact: the same text, but for case, white space and a full stop. "
        "number: the same final number, as the suite gsm8k reads it. refusal: the built-in judge says the same of "
        "both.",
        panel="Grades",
        off="none",
    )
    answer_after: str | None = option(
        None,
        "Compare what stands behind the last occurrence of this text, such as 'The answer is'. Answers without it are "
        "wrong, and counted.",
        panel="Grades",
        needs="grade=exact or grade=number",
    )

    num_procs: int | None = option(None, COPIES_HELP, panel="Processes", runtime=True, ge=1)
    precision: Precision = option("fp32", "Arithmetic: fp32 or bf16.", panel="Model")
    chat_template: Path | None = option(
        None, "Jinja chat template to use instead of the tokenizer's own.", panel="Model", runtime=True
    )
    revision: str | None = option(None, "Revision of a model on the hub.", panel="Model", runtime=True)
    trust_remote_code: bool = option(False, "Run Python code that the model's repository brings.", panel="Model")

    def problems(self) -> Sequence[str]:
        """What contradicts each other."""
        problems = [*super().problems()]
        if self.answer_after is not None and not self.answer_after.strip():
            problems.append("--answer-after is empty")
        return problems
