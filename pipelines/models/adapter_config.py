"""What an adapter's configuration says, checked before PEFT reads it: its type, its base and its patterns."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_registry.core.errors import InputError
from pipelines.models.files import ADAPTER_CONFIG, read_json

logger = logging.getLogger(__name__)

UNFOLDABLE = (
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE"),
    *("ADAPTION_PROMPT", "POLY", "XLORA", "LILY", "SHADOW"),
)
"""Types of adapters that change more than weights: virtual tokens, own layers, routers. PEFT cannot fold them in."""

_PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save", "target_parameters")
_PATTERN_KEYS = ("rank_pattern", "alpha_pattern")
# What trainers write beside PEFT's own settings, and what says nothing about the weights.
_HARMLESS = ("unsloth_fixed", "peft_version", "auto_mapping", "inference_mode", "task_type", "revision")


@dataclass(frozen=True)
class NamedBase:
    """The model that an adapter adapts, as its configuration names it.

    Attributes:
        reference: a directory or a hub id.
        revision: the branch, tag or commit on the hub; None for the main branch.
    """

    reference: str
    revision: str | None


def read_adapter_config(directory: Path) -> dict[str, Any]:
    """The configuration of an adapter that can be loaded.

    Raises:
        InputError: it cannot be read, the adapter is of a type that changes more than weights, or a setting is none
            that PEFT could take; the message names it.
    """
    where = directory / ADAPTER_CONFIG
    config = read_json(where)
    kind = config.get("peft_type")
    if not isinstance(kind, str):
        raise InputError(f"the adapter '{directory}' does not say of which type it is", where=f"peft_type in {where}")
    if kind in UNFOLDABLE:
        raise InputError(
            f"'{directory}' is an adapter of type {kind}, which changes more than the weights of its base model",
            where=f"peft_type in {where}",
            fix="use an adapter that can be folded into the weights, such as LoRA",
        )
    if config.get("alora_invocation_tokens"):
        raise InputError(
            f"'{directory}' is an activated LoRA, which changes only some tokens and cannot be folded into its base",
            where=f"alora_invocation_tokens in {where}",
        )
    for key in (*_PATTERNS, *_PATTERN_KEYS):
        _check_patterns(key, config.get(key), where)
    return config


def named_base(config: Mapping[str, Any], directory: Path) -> NamedBase:
    """The base model that the configuration names.

    Raises:
        InputError: it names none.
    """
    where = f"base_model_name_or_path in {directory / ADAPTER_CONFIG}"
    reference, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(reference, str) or not reference.strip() or "\0" in reference:
        raise InputError(
            f"the adapter '{directory}' does not say which model it adapts",
            where=where,
            fix="write the base model's directory or hub id there",
        )
    if revision is not None and not isinstance(revision, str):
        raise InputError(f"the revision of the base model is no text but {revision!r}", where=where)
    return NamedBase(reference, revision or None)


def tell_unknown_settings(config: Mapping[str, Any], known: Mapping[str, Any], directory: Path) -> None:
    """Say which settings the installed PEFT does not know and ignores, such as those of a newer one.

    Args:
        config: the adapter's configuration as it was read.
        known: the settings of PEFT's own configuration of this type.
        directory: the adapter, for the message.
    """
    ignored = {key: value for key, value in config.items() if value and key not in known and key not in _HARMLESS}
    if ignored:
        logger.warning(
            "%s: this PEFT does not know, and ignores, %s; if one of them matters, install the PEFT %sthat wrote it",
            directory / ADAPTER_CONFIG,
            ", ".join(f"{key}={str(value)[:40]}" for key, value in ignored.items()),
            f"{version} " if (version := str(config.get("peft_version") or "")[:20]) else "",
        )


def _check_patterns(key: str, value: Any, where: Path) -> None:
    """Refuse values that PEFT would compile, or go through, and fail."""
    if value is None:
        return
    if key in _PATTERN_KEYS:
        if not isinstance(value, dict) or not all(_is_number(item) for item in value.values()):
            raise InputError(f"'{key}' must give a number for each pattern, got {str(value)[:60]}", where=str(where))
        patterns = list(value)
    elif isinstance(value, str):
        # A name or a regular expression, which PEFT takes for one; with a list it compares names.
        patterns = [value]
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        patterns = list(value) if key == "layers_pattern" else []
    else:
        raise InputError(f"'{key}' must be text or a list of names, got {str(value)[:60]}", where=str(where))
    for pattern in patterns:
        try:
            re.compile(rf"(.*\.)?({pattern})$" if key in _PATTERN_KEYS else pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise InputError(
                f"'{pattern[:60]}' in '{key}' is no regular expression: {error}",
                where=str(where),
                fix="correct the pattern; characters such as ( and * need a backslash before them",
            ) from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
