"""What people give as a source of rows and is something else: registries, descriptions of data sets, models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from data_registry.core.errors import InputError
from data_registry.core.json_text import decode
from data_registry.core.regular_files import open_regular

_REGISTRY: Final = "dataset_info.json"
# Keys of LLaMA-Factory's registry that say where the rows of an entry lie.
_PLACES: Final = frozenset({"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"})
_OF_MODELS: Final = ("config.json", "adapter_config.json", "tokenizer_config.json", "model.safetensors.index.json")
_KEYS_OF_MODELS: Final = frozenset(
    {"model_type", "architectures", "peft_type", "tokenizer_class", "chat_template", "weight_map"}
)
_MAX_BYTES: Final = 1 << 24
_SHOWN: Final = 6


def check_is_data(path: Path) -> None:
    """Refuse a file or folder that is no source of rows, though it holds files that could be read as such.

    Raises:
        InputError: it is a registry, the description of a data set, or a model; the error says what to give instead.
    """
    registry = path / _REGISTRY if path.is_dir() else path
    if registry.name == _REGISTRY and registry.is_file():
        names = _entries(registry)
        if names:
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            what = "is a registry" if path == registry else "holds the registry dataset_info.json"
            raise InputError(
                f"'{path}' {what}, which names {len(names)} data sets: {shown}",
                fix=f"name the one that you mean:  ogpsa prepare-data {names[0]} --registry '{registry}'",
            )
        if path == registry:
            raise InputError(
                f"'{path}' describes a data set and holds no rows", fix=f"give its folder:  '{path.parent}'"
            )
    found = next((name for name in _OF_MODELS if _is_of_model(path / name if path.is_dir() else path, name)), None)
    if found is not None:
        belongs = f"is a model or its tokenizer (it has a {found})" if path.is_dir() else "belongs to a model"
        raise InputError(
            f"'{path}' {belongs}, and is not a data set",
            fix="give the file or folder with the rows; the model that they are for is named with --tokenizer",
        )


def _entries(registry: Path) -> list[str]:
    """The names in LLaMA-Factory's registry; none where the file is something else, such as the library's own."""
    content = _object(registry)
    if not content or not all(isinstance(value, dict) for value in content.values()):
        return []
    return list(content) if any(_PLACES & set(value) for value in content.values()) else []


def _is_of_model(path: Path, name: str) -> bool:
    return path.name == name and path.is_file() and not _KEYS_OF_MODELS.isdisjoint(_object(path))


def _object(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where it is none, or too long to be one of these."""
    try:
        with open_regular(path) as stream:
            value = decode(stream.read(_MAX_BYTES))
    except (OSError, ValueError, InputError):
        return {}
    return value if isinstance(value, dict) else {}
