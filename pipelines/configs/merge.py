"""Options of ``ogpsa merge``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator

from data_registry.core.errors import ConfigError
from pipelines.configs.common import OutputConfig, PassThrough, seed_option, split_numbers
from pipelines.configs.merge_methods import METHODS, MergeMethod, merge_types
from pipelines.configs.merge_sweep import evaluation_options, read_shares, share_problems
from pipelines.core.config import option

if TYPE_CHECKING:
    MethodName = str
    MergeType = str
else:
    MethodName = Literal[*METHODS]
    MergeType = Literal[*merge_types()]

DEFAULT_MERGE_TYPE = "linear"
DEFAULT_WEIGHTS = (0.8, 0.2)
DEFAULT_THRESHOLD = 0.35
DEFAULT_DENSITY = 0.5


def _listed(names: Sequence[str], word: str) -> str:
    """The names as part of a sentence: ``a, b and c``."""
    return f" {word} ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _those(condition: Callable[[MergeMethod], bool]) -> str:
    """The names of the methods that meet the condition."""
    return _listed([method.name for method in METHODS.values() if condition(method)], "and")


_DOES = ", ".join(f"{method.name} {method.summary}" for method in METHODS.values() if method.has_criterion)
_WITH_CRITERION = _those(lambda method: method.has_criterion)
_WITHOUT_SAFE = _those(lambda method: not method.takes_safe)
_WITH_DENSITY = _those(lambda method: method.takes_density)
_RANDOM = _those(lambda method: method.is_random)


def _needs(condition: Callable[[MergeMethod], bool]) -> str:
    """The need for a method that meets the condition, or for one that repairs layers by a method that does."""
    found = [method.name for method in METHODS.values() if condition(method)]
    types = [f"merge_type={name}" for name in merge_types() if name in found]
    return " or ".join([*(f"method={name}" for name in found), *types])


_NEEDS_CRITERION = " or ".join(f"method={method.name}" for method in METHODS.values() if method.has_criterion)
_NEEDS_SAFE = " or ".join(f"method={method.name}" for method in METHODS.values() if method.takes_safe)
_NEEDS_MERGE_TYPE = " or ".join(f"method={method.name}" for method in METHODS.values() if method.uses_merge_type)


class MergeConfig(OutputConfig):
    """Repair a model after fine-tuning: merge it with a safe one in the layers that left the direction of alignment."""

    examples: ClassVar[Sequence[str]] = (
        "ogpsa merge runs/task --safe runs/safe --unaligned meta-llama/Llama-3.1-8B --out merged",
        "ogpsa merge runs/task --safe runs/safe --unaligned BASE --cos-threshold 0.2,0.35,0.5 --out sweep",
        "ogpsa merge runs/task --method safelora --aligned CHAT --unaligned BASE --output model --out repaired",
        "ogpsa merge runs/full --safe MODEL --method linear --weights 0.5,0.5 --out soup   # between two models",
        "ogpsa merge runs/sft --safe MODEL --method linear --sweep tenths --suite testbed --out curve",
    )

    finetuned: str = option(
        ...,
        "What fine-tuning made: a LoRA adapter or a full model (directory, run of ogpsa, or hub id).",
        positional=True,
        runtime=True,
    )
    safe: str | None = option(
        None, f"The safe adapter or model that is merged in. Not for {_WITHOUT_SAFE}.", panel="Models", runtime=True,
        needs=_NEEDS_SAFE,
    )  # fmt: skip
    base: str | None = option(
        None,
        "Model that the adapters change, or that full fine-tuning started from. By default the one that the adapter "
        "names, or --aligned.",
        panel="Models",
        runtime=True,
    )
    aligned: str | None = option(
        None, "Aligned model of the criterion (the chat model); by default the base.", panel="Models", runtime=True,
        needs=_NEEDS_CRITERION,
    )  # fmt: skip
    unaligned: str | None = option(
        None, f"The same model before its alignment, for {_WITH_CRITERION}.", panel="Models", runtime=True,
        needs=_NEEDS_CRITERION,
    )  # fmt: skip
    method: MethodName = option("safemerge", f"{_DOES}; {_listed(merge_types(), 'and')} merge all layers.", short="m")
    merge_type: MergeType = option(
        DEFAULT_MERGE_TYPE,
        f"How safemerge merges a layer: {_listed(merge_types(), 'or')}.",
        needs=_NEEDS_MERGE_TYPE,
    )
    weights: list[float] = option(
        [*DEFAULT_WEIGHTS], "Weights of the fine-tuned and the safe changes.", needs=(_NEEDS_SAFE, "!sweep")
    )
    cos_threshold: list[float] = option(
        [DEFAULT_THRESHOLD],
        "A layer whose cosine is below this is repaired. Several, as 0.2,0.35,0.5, make one result each in one pass.",
        needs=(_NEEDS_CRITERION, "threshold=fixed"),
    )
    threshold: Literal["fixed", "auto"] = option(
        "fixed", "auto chooses the threshold so that --merge-fraction of the layers is repaired.",
        needs=_NEEDS_CRITERION, off="fixed",
    )  # fmt: skip
    merge_fraction: float | None = option(
        None, "Share of the layers to repair, for --threshold auto.", needs="threshold=auto", ge=0, le=1
    )
    density: float | None = option(
        None,
        f"Share of elements that {_WITH_DENSITY} keep; {DEFAULT_DENSITY} by default.",
        needs=_needs(lambda method: method.takes_density),
        gt=0,
        le=1,
    )
    seed: int = seed_option(
        0,
        f"Seed of {_RANDOM}, and of its compression into an adapter.",
        needs=_needs(lambda method: method.uses_seed),
    )
    original_semantics: bool = option(
        False,
        "Compute as the published scripts do, for comparison: rounded cosines, factors added instead of changes. "
        "Forms the large matrices.",
    )
    output: Literal["auto", "adapter", "model", "report"] = option(
        "auto",
        "adapter, model (changes merged into the base weights), or report (no weights, only the figures of each "
        "layer); by default what was given.",
        panel="Output",
        needs="!sweep",
        off="auto",
    )
    rank: int | None = option(
        None,
        "Highest rank of the output adapter; larger ones are truncated, their error is reported. By default exact.",
        panel="Output",
        needs=("output=auto or output=adapter", "!sweep"),
        ge=1,
    )
    max_shard_gb: float = option(
        5.0,
        "Size of a weight file of an output model, in GB.",
        panel="Output",
        needs=("output=auto or output=model", "!sweep"),
        gt=0,
    )
    allow_unpaired: bool = option(
        False, "Go on where a layer is on one side only: it stays as it is there, and is listed.", panel="Models",
        permits=True,
    )  # fmt: skip
    sweep: list[float] = option(
        [],
        "Make no model: evaluate mixes in memory at these shares of the fine-tuned model, as 0,0.25,0.5,1 or tenths. "
        "The rest is --safe, for which the start can be given; for an adapter its base, by default.",
        panel="Sweep",
        needs="method=linear",
    )
    suite: list[str] = option(
        [],
        "What the sweep measures: suites as for evaluate; those that have a validation side are measured on it.",
        panel="Sweep",
        needs="sweep",
    )
    safe_at_least: float = option(
        0.99,
        "Choose the smallest share from which on the sweep's mixes are all safe by so much. The choice is printed as a "
        "command, and never applied.",
        panel="Sweep",
        needs="sweep",
        gt=0,
        le=1,
    )
    evaluation: PassThrough = option(
        {},
        "Any other option of evaluate for the sweep: --set evaluation.harmful=attacks.csv, evaluation.judge=...",
        panel="Sweep",
        needs="sweep",
    )
    workers: int = option(2, "Threads that read ahead.", panel="Processes", runtime=True, ge=1)

    @field_validator("weights", "cos_threshold", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Split numbers that are separated by commas, as on the command line."""
        return split_numbers(value)

    @field_validator("sweep", mode="before")
    @classmethod
    def _shares(cls, value: Any) -> Any:
        return read_shares(value)

    @property
    def needs_criterion(self) -> bool:
        """Whether layers are chosen by their cosines."""
        return METHODS[self.method].has_criterion

    @property
    def repair(self) -> MergeMethod:
        """The method by which a layer is repaired."""
        method = METHODS[self.method]
        return METHODS[self.merge_type] if method.uses_merge_type else method

    def problems(self) -> list[str]:
        """What is missing, and what contradicts each other."""
        return [
            *super().problems(),
            *_number_problems(self),
            *_method_problems(self),
            *_original_problems(self),
            *_sweep_problems(self),
        ]


def _number_problems(config: MergeConfig) -> list[str]:
    problems = []
    if len(config.weights) != 2 or min(config.weights, default=0) < 0 or sum(config.weights) <= 0:
        problems.append(f"--weights takes two numbers, none negative, not both zero (0.8,0.2), not {config.weights}")
    if not config.cos_threshold or not all(-1 <= value <= 1 for value in config.cos_threshold):
        problems.append(f"--cos-threshold takes cosines from -1 to 1, not {config.cos_threshold}")
    if len(set(config.cos_threshold)) < len(config.cos_threshold):
        problems.append("--cos-threshold names a value twice")
    return problems


def _method_problems(config: MergeConfig) -> list[str]:
    problems = []
    method = METHODS[config.method]
    needed = {
        # Adapters of a sweep fade towards the model below them.
        "--safe": config.safe is None and method.takes_safe and not config.sweep,
        "--unaligned": config.unaligned is None and config.needs_criterion,
        "--merge-fraction": config.merge_fraction is None and config.threshold == "auto",
    }
    problems += [f"{name} is required with this method" for name, missing in needed.items() if missing]
    if config.output == "report" and not config.needs_criterion:
        problems.append(f"--output report has no effect with --method {config.method}")
    return problems


def _sweep_problems(config: MergeConfig) -> list[str]:
    if not config.sweep:
        return []
    if not config.suite:
        return ["--sweep needs --suite: what the mixes are measured by"]
    problems = share_problems(config.sweep)
    try:
        evaluation_options(config.finetuned, config.out, config.suite, config.evaluation)
    except ConfigError as error:
        problems += error.problems
    return problems


def _original_problems(config: MergeConfig) -> list[str]:
    if not config.original_semantics:
        return []
    is_published = METHODS[config.method].uses_merge_type or config.repair.published is not None
    refused = {
        f"--method {config.method}": not config.needs_criterion or not is_published,
        f"--merge-type {config.merge_type}": METHODS[config.merge_type].published is None,
        "--rank": config.rank is not None,
    }
    return [f"--original-semantics does not go with {name}" for name, given in refused.items() if given]
