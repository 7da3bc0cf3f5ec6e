"""Options of ``ogpsa chat``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pipelines.configs.common import Precision, seed_option
from pipelines.core.config import CommandConfig, option


class ChatConfig(CommandConfig):
    r"""Talk to a model, or to two side by side, with the chat template that training uses.

    On a terminal: /reset begins anew, /system TEXT sets the system message, /quit leaves, and
    Ctrl-C stops an answer. From a pipe every line is a message, and every answer is one line
    (line breaks in it are written as \n), after the model's name and a tab where there are two.
    """

    examples: ClassVar[Sequence[str]] = (
        "ogpsa chat runs/sft",
        "ogpsa chat MODEL --against runs/sft                     # the same messages to both",
        "ogpsa chat runs/sft --temperature 0.7 --top-p 0.9 --system 'You are terse.'",
        "ogpsa chat runs/sft --each-alone < prompts.txt          # one answer per line",
    )

    model: str = option(..., "Model: a directory, a hub id, or a run of ogpsa.", positional=True)
    against: str | None = option(None, "A second model that gets the same messages.")
    system: str | None = option(None, "System message before the conversation.")
    max_new_tokens: int = option(512, "Longest answer in tokens.", panel="Answers", ge=1)
    temperature: float = option(0.0, "Temperature of sampling; 0 is greedy.", panel="Answers", off=0.0, ge=0)
    top_p: float = option(
        1.0, "Sample from this share of probability.", panel="Answers", needs="temperature", gt=0, le=1
    )
    seed: int = seed_option(0, "Seed of sampling.", panel="Answers", needs="temperature")
    each_alone: bool = option(False, "Every message begins a new conversation.")
    precision: Precision = option("fp32", "Arithmetic: fp32 or bf16.", panel="Model")
    chat_template: Path | None = option(
        None, "Jinja chat template to use instead of the tokenizer's own.", panel="Model"
    )
    revision: str | None = option(None, "Revision of a model on the hub.", panel="Model")
    trust_remote_code: bool = option(False, "Run Python code that the model's repository brings.", panel="Model")
