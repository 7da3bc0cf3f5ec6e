"""The models that a merge takes: named by the options, or told from the others."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from data_registry.core.errors import ConfigError
from data_registry.core.manifest import InputRecord
from pipelines.configs.merge import MergeConfig
from pipelines.configs.merge_methods import METHODS
from pipelines.models.reference import ModelSource, resolve_model

logger = logging.getLogger(__name__)


def resolve_sources(config: MergeConfig) -> Sources:
    """What the options name, and what they leave to be filled in.

    Raises:
        ConfigError: a model is needed that cannot be told from the others.
        InputError: a model cannot be found.
    """
    base = resolve_model(config.base) if config.base is not None else None
    finetuned = resolve_model(config.finetuned, base=base)
    if finetuned.is_adapter:
        base = finetuned.base
    safe = _safe(config, base) if config.safe is not None else None
    unaligned = resolve_model(config.unaligned) if config.unaligned is not None else None
    aligned = resolve_model(config.aligned) if config.aligned is not None else None
    if aligned is not None and base is not None and aligned.path_or_id == base.path_or_id:
        aligned = base  # whose fingerprint, which takes reading it, is then computed once
    if config.needs_criterion:
        base, aligned = base or aligned, aligned or base
        if aligned is None:
            raise ConfigError("full models need --aligned (the model before fine-tuning) for the criterion")
    elif base is None and config.repair.needs_base(config.weights):
        free = [method.name for method in METHODS.values() if "weights" in method.works_on]
        raise ConfigError(
            f"--method {config.method} of full models needs --base, what fine-tuning started from "
            f"(only {' or '.join(free)} with weights that sum to 1 does not)"
        )
    _check_output(config, finetuned)
    return Sources(finetuned, safe, base, aligned, unaligned)


def _safe(config: MergeConfig, base: ModelSource | None) -> ModelSource:
    assert config.safe is not None
    safe = resolve_model(config.safe, base=base if config.base is not None else None)
    if safe.base is None or base is None:
        return safe
    if safe.base.path_or_id == base.path_or_id:
        return replace(safe, base=base)
    if safe.base.fingerprint() != base.fingerprint():
        logger.warning(
            "the safe adapter was trained on '%s', the fine-tuned one on '%s': their changes mean different things",
            safe.base.reference,
            base.reference,
        )
    return safe


def _check_output(config: MergeConfig, finetuned: ModelSource) -> None:
    if finetuned.is_adapter:
        return
    refused = {
        "--output adapter": config.output == "adapter",
        "--rank": config.rank is not None,
        "--original-semantics": config.original_semantics,
    }
    problems = [
        f"{name} is for adapters; '{config.finetuned}' is a full model" for name, given in refused.items() if given
    ]
    if problems:
        raise ConfigError(problems)


def named_sources(sources: Sources) -> list[tuple[str, ModelSource]]:
    """The models that take part, by their roles."""
    names = ("finetuned", "safe", "base", "aligned", "unaligned")
    return [(name, source) for name in names if (source := getattr(sources, name)) is not None]


def merge_inputs(sources: Sources) -> list[InputRecord]:
    """Records of the models."""
    return [source.input_record(name) for name, source in named_sources(sources)]


def check_unchanged(sources: Sources) -> None:
    """Make sure that the weights that were read are those of the models that are recorded.

    Raises:
        ArtifactError: a model changed while it was being read.
    """
    for _, source in named_sources(sources):
        source.check_unchanged()


@dataclass(frozen=True)
class Sources:
    """Where the inputs of a merge come from.

    Attributes:
        finetuned: adapter or full model.
        safe: the adapter or model that is merged in, of the same sort; None where the method takes none.
        base: the model that the adapters change, or where full fine-tuning started; None where no method needs it.
        aligned: the aligned model, for the criterion.
        unaligned: the unaligned model, for the criterion.
    """

    finetuned: ModelSource
    safe: ModelSource | None
    base: ModelSource | None
    aligned: ModelSource | None
    unaligned: ModelSource | None
