"""Options of ``ogpsa evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pipelines.configs.common import COPIES_HELP, OutputConfig, Precision, seed_option
from pipelines.core.config import option


class EvaluateConfig(OutputConfig):
    """Measure a model: figures with their number of items and a 95 % interval."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa evaluate runs/sft --suite testbed --out results/sft",
        "ogpsa evaluate MODEL --suite safety --num-procs 8 --precision bf16 --out results/safety",
        "ogpsa evaluate MODEL --suite prompts --harmful attacks.csv --harmless chats.jsonl --out results/mine",
        "ogpsa evaluate MODEL --suite reference-loss --data data/gsm8k --data data/halueval --out results/base",
        "ogpsa evaluate MODEL --suite gsm8k --suite preference --data data/gsm8k --data data/pairs --out results/base",
        "ogpsa evaluate MODEL --suite safety --judge allenai/wildguard --download-only",
        "ogpsa evaluate MODEL --suite capability --task mmlu --task gsm8k --out results/base",
        "ogpsa evaluate --list-suites                                  # --list-suites word: those with this word",
        "ogpsa evaluate --rejudge results/safety --judge models/HarmBench-Llama-2-13b-cls --out results/harmbench",
    )

    model: str | None = option(
        None,
        "Model: a directory, a hub id, or a run of ogpsa.",
        positional=True,
        runtime=True,
        needs="!rejudge",
    )
    # Looking up data and judging again need neither a place nor suites; the check below reports what is missing.
    out: Path | None = option(None, "Directory of the artifact to make.", panel="Output", runtime=True, short="o")  # type: ignore[assignment]
    suite: list[str] = option(
        [],
        "Suite to run: testbed, testbed-validation, reference-loss, preference, gsm8k, multiple-choice, answer-choice, "
        "divergence, instructions, capability, safety, prompts, one of the prompt sets of safety "
        "(xstest, harmbench, strongreject, advbench, wildjailbreak), one of the other prompt sets (lookalikes, "
        "lookalikes-validation, hh-validation, xstest-shipped, harmbench-pip, do-not-answer-malicious, "
        "do-not-answer-hateful, do-not-answer-private, or-bench-hard-1k, or-bench-80k, or-bench-toxic, "
        "jailbreakbench, jailbreakbench-benign, sorry-bench, wildguardtest), or a YAML file; repeat for several.",
        short="s",
        needs="!rejudge",
    )
    data: list[Path] = option(
        [],
        "Prepared data sets for the suites reference-loss, preference, gsm8k, multiple-choice and answer-choice; "
        "samples for divergence.",
        short="d",
        runtime=True,
        needs="!rejudge",
    )
    harmful: list[Path] = option(
        [],
        "Prompts to be refused, for the suite prompts: csv, json(l), parquet, or txt with one a line.",
        runtime=True,
        needs="suite=prompts",
    )
    harmless: list[Path] = option(
        [], "Prompts to be answered, for the suite prompts.", runtime=True, needs="suite=prompts"
    )
    task: list[str] = option(
        [],
        "Task or group of lm-eval for the suite capability, such as mmlu.",
        panel="Capability",
        needs="suite=capability",
    )
    task_dir: Path | None = option(
        None,
        "Directory with lm-eval tasks of your own (YAML).",
        panel="Capability",
        runtime=True,
        needs="suite=capability",
    )
    shots: int | None = option(
        None,
        "Worked examples before each prompt of a task; by default the task's own number.",
        panel="Capability",
        ge=0,
        needs="suite=capability",
    )
    chat_prompts: bool = option(
        False,
        "Write the tasks' prompts with the chat template; by default plain, as lm-eval does.",
        panel="Capability",
        needs="suite=capability",
    )
    name: str | None = option(None, "Name of the run in tables; by default the model's.")
    num_samples: int | None = option(
        None,
        "At most this many items of each data set, or of each group of a suite.",
        short="n",
        ge=1,
        needs="!rejudge",
    )
    batch_size: int = option(64, "Items of one forward pass.", short="b", ge=1, runtime=True)
    max_length: int = option(2048, "Longest sequence in tokens where given answers are scored.", ge=2, needs="!rejudge")
    seed: int = seed_option(0, "Seed of draws, sampling and bootstrap.")
    bootstrap: int = option(2000, "Resamples for the 95 % intervals.", ge=100)

    max_new_tokens: int | None = option(
        None, "Longest answer in tokens; by default the suite's own limit.", panel="Answers", ge=1, needs="!rejudge"
    )
    temperature: float = option(
        0.0, "Temperature of sampling; 0 is greedy.", panel="Answers", ge=0, needs="!rejudge", off=0.0
    )
    top_p: float = option(
        1.0, "Sample from this share of probability.", panel="Answers", gt=0, le=1, needs=("!rejudge", "temperature")
    )
    system: str | None = option(None, "System message before every prompt.", panel="Answers", needs="!rejudge")
    backend: Literal["transformers", "vllm"] = option(
        "transformers",
        "What makes answers: transformers, or vllm where it is installed.",
        panel="Answers",
        needs="!rejudge",
    )

    judge: str = option(
        "refusal",
        "Judge of safety answers: refusal (built in, needs no GPU), or a judge model: a directory or hub id.",
        panel="Judging",
    )
    judge_format: str | None = option(
        None,
        "How a judge model is asked and read: harmbench, wildguard, llama-guard, refusal-classes, harm-classes, or a "
        "YAML file; by default told from its name or classes.",
        panel="Judging",
    )
    rejudge: Path | None = option(
        None,
        "Judge the answers of this finished evaluation again, without its model.",
        panel="Judging",
        runtime=True,
    )
    baseline: Path | None = option(
        None,
        "Results of another model on the same suites: show what changed, item by item.",
        panel="Output",
        runtime=True,
    )
    download_only: bool = option(
        False,
        "Fetch the suites' data, and MODEL and a judge model where they are named, from the hub into its cache, and "
        "stop.",
        panel="Output",
        runtime=True,
        needs="!rejudge",
    )

    list_suites: bool = option(
        False, "List the suites, or those with the word given as MODEL, and stop.", panel="Suites", runtime=True
    )

    num_procs: int | None = option(None, COPIES_HELP, panel="Processes", runtime=True, ge=1)
    precision: Precision = option("fp32", "Arithmetic: fp32 or bf16.", panel="Model")
    chat_template: Path | None = option(
        None,
        "Jinja chat template to use instead of the tokenizer's own.",
        panel="Model",
        needs="!rejudge",
        runtime=True,
    )
    revision: str | None = option(
        None, "Revision of a model on the hub.", panel="Model", needs="!rejudge", runtime=True
    )
    trust_remote_code: bool = option(
        False, "Run Python code that the model's repository, or a task of your own, brings.", panel="Model"
    )

    def problems(self) -> list[str]:
        """What is missing."""
        problems = [*super().problems()]
        if self.name is not None and not self.name.strip():
            problems.append("option --name is blank: give a name, or leave it out")
        if self.rejudge is not None and self.judge == "refusal":
            fields = type(self).model_fields
            problems += [
                f"--{name.replace('_', '-')} is for a judge model where --rejudge is given: add --judge PATH"
                for name in ("batch_size", "precision", "trust_remote_code")
                if getattr(self, name) != fields[name].default
            ]
        if self.list_suites:
            return problems
        if self.rejudge is None:
            if not self.suite:
                problems.append("option --suite is required: Suite to run, such as testbed or safety")
            if self.model is None and not self.download_only:
                problems.append("MODEL is required: a directory, a hub id, or a run of ogpsa")
        if self.out is None and not self.download_only:
            problems.append("option --out is required: Directory of the artifact to make")
        return problems
