"""The special tokens that a model names by their ids: numbers, or a refusal that says where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_registry.core.errors import InputError
from pipelines.models.files import CONFIG, GENERATION_CONFIG
from pipelines.models.text_config import text_config

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def check_special_tokens(model: Any, directory: Path) -> None:
    """Refuse special tokens that are no token ids; transformers loads them, and fails where they are first used.

    Args:
        model: the loaded model.
        directory: where its files lie, for the message.

    Raises:
        InputError: a special token is something else than a number, or a list of numbers; the message quotes it.
    """
    places = [(GENERATION_CONFIG, getattr(model, "generation_config", None))]
    places += [(CONFIG, settings) for settings in (model.config, text_config(model.config))]
    for file, settings in places:
        for name in _IDS:
            value = getattr(settings, name, None)
            if not all(_is_id(each) for each in (value if isinstance(value, list | tuple) else [value])):
                raise InputError(
                    f"'{name}' of '{directory}' must be a token's number, got {str(value)[:60]!r}",
                    where=f"{name} in {directory / file}",
                    fix="write the token's id there, which tokenizer.json has beside the token",
                )


def _is_id(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))
