"""Options of ``ogpsa prepare-data``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from data_registry.formats.registry import AUTO, FORMATS
from pipelines.configs.common import seed_option
from pipelines.core.config import CommandConfig, option

# The option "list" hides the type of that name within the class.
Names = list[str]


class PrepareDataConfig(CommandConfig):
    """Turn a data set into the normal form that training reads: an Arrow data set with a manifest."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa prepare-data gsm8k --num-samples 200 --out data/gsm8k",
        "ogpsa prepare-data my_safety.jsonl --format alpaca --out data/safety",
        "ogpsa prepare-data PKU-Alignment/PKU-SafeRLHF --split train --out data/saferlhf",
        "ogpsa prepare-data samples/gsm8k --format samples --seed 42 --out data/pairs",
        "ogpsa prepare-data --list                    # what has a name; --list word: a part of it",
    )

    source: str | None = option(
        None,
        "A registry name, a file or folder (json, jsonl, csv, parquet, Arrow; also .gz), or a hub id.",
        positional=True,
    )
    out: Path | None = option(None, "Directory of the data set to make.", panel="Output", runtime=True, short="o")
    overwrite: bool = option(
        False, "Replace a finished data set that was made with other settings.", panel="Output", runtime=True
    )
    dry_run: bool = option(False, "Show the resolved options and the plan, then stop.", panel="Output", runtime=True)
    format: str = option(
        AUTO,
        f"How rows are laid out: {', '.join((AUTO, *FORMATS))}.",
        panel="Reading",
    )
    task: Literal["auto", "sft", "preference"] = option(
        "auto",
        "What to make: conversations for sft, or prompt/chosen/rejected for preference.",
        panel="Reading",
    )
    columns: dict[str, str] = option(
        {},
        "Column names where they differ from the format's, as --set columns.prompt=question.",
        panel="Reading",
    )
    tags: dict[str, str] = option(
        {},
        "Keys and role names of sharegpt conversations where they differ, as --set tags.user=customer; there are "
        "role, content, user, assistant and system.",
        panel="Reading",
        needs="format=auto or format=sharegpt",
    )
    where: dict[str, str] = option(
        {},
        "Take only rows that have this value in this column, as --set where.language=en.",
        panel="Reading",
    )
    ignore_columns: Names = option(
        [],
        "Columns, and keys of messages (messages.KEY), that may be lost: separated by commas. Others without a use are "
        "named, and rows of which one changes the meaning are refused.",
        panel="Reading",
    )
    source_split: str | None = option(None, "Split to read of a hub data set or a folder of splits.", panel="Reading")
    subset: str | None = option(None, "Configuration (subset) of a hub data set.", panel="Reading")
    revision: str | None = option(None, "Revision of a hub data set.", panel="Reading")
    streaming: bool = option(
        False, "Read a hub data set over the network as needed, without keeping a copy.", panel="Reading", runtime=True
    )
    registry: Path | None = option(
        None,
        "A LLaMA-Factory dataset_info.json or a folder of YAML entries to look names up in.",
        panel="Reading",
        runtime=True,
    )
    num_samples: int | None = option(
        None, "Keep this many rows, drawn with --seed.", panel="Selection", short="n", ge=1
    )
    seed: int = seed_option(0, "Seed of the draw of rows, and of the draw of pairs from samples.", panel="Selection")
    split: Literal["all", "train", "heldout"] = option(
        "all",
        "Keep the training part or the held-out part. A row's part depends on its content alone, not on the order.",
        panel="Selection",
    )
    heldout_fraction: float = option(
        0.1, "Share of rows that belong to the held-out part.", panel="Selection",
        needs="split=train or split=heldout", gt=0, lt=1,
    )  # fmt: skip
    pairs_per_prompt: int = option(
        5,
        "Most pairs of a right and a wrong answer to one prompt, drawn with --seed.",
        panel="Samples",
        needs="format=samples",
        ge=1,
    )
    missing: Literal["drop", "gold"] = option(
        "drop",
        "Prompts without a right answer: drop leaves them out; gold takes the data's own answer as the chosen one.",
        panel="Samples",
        needs="format=samples",
    )
    system: str | None = option(
        None, "System message to put before every conversation, in place of the row's own.", panel="Selection"
    )
    tokenizer: str | None = option(
        None,
        "Model or tokenizer that the rows are for: those that its chat template refuses are dropped. "
        "Needed for --max-length and --preview.",
        panel="Length",
        runtime=True,
    )
    chat_template: Path | None = option(
        None,
        "Jinja chat template to use instead of the tokenizer's own.",
        panel="Length",
        needs="tokenizer",
        runtime=True,
    )
    trust_remote_code: bool = option(
        False, "Run Python code that the tokenizer's repository brings. Noted in the manifest.", panel="Length",
        needs="tokenizer",
    )  # fmt: skip
    max_length: int | None = option(
        None,
        "Rows longer than this many tokens are cut; a row left without a trained token is dropped.",
        panel="Length",
        needs="tokenizer",
        ge=2,
    )
    drop_too_long: bool = option(
        False,
        "Leave out rows longer than --max-length, or than the positions of the model that --tokenizer names.",
        panel="Length",
        needs="tokenizer",
    )
    max_dropped: float = option(
        0.05,
        "Fail when a larger share of the rows is unusable (duplicates do not count).",
        panel="Checks",
        permits=True,
        ge=0,
        le=1,
    )
    preview: int = option(
        0, "Show this many rows as tokens, trained ones in colour.", panel="Checks", ge=0, runtime=True,
        needs="tokenizer", off=0,
    )  # fmt: skip
    num_workers: int = option(1, "Worker processes.", panel="Processes", ge=1, runtime=True)
    list: bool = option(
        False,
        "List the registry, or the entries with the word given as SOURCE, and stop.",
        panel="Registry",
        runtime=True,
    )
    describe: bool = option(False, "Describe the named registry entry and stop.", panel="Registry", runtime=True)

    @field_validator("ignore_columns", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        """Names that commas separate, each by itself."""
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, Sequence) or not all(isinstance(names, str) for names in given):
            return given
        return list(dict.fromkeys(name.strip() for names in given for name in names.split(",") if name.strip()))

    def problems(self) -> Sequence[str]:
        """What is missing, and what contradicts each other."""
        problems = [*super().problems()]
        if self.source is None and not self.list:
            problems.append("name a source: a registry name, a file or folder, or a hub id (--list shows the registry)")
        if self.out is None and not (self.list or self.describe or self.dry_run):
            problems.append("--out is required: the directory of the data set to make")
        both = set(self.ignore_columns) & set(self.columns.values())
        problems += [f"column '{name}' is named as a field and under --ignore-columns" for name in sorted(both)]
        if self.system is not None and not self.system.strip():
            problems.append("--system is empty")
        return problems
