"""Summarises a model directory by its configuration and the headers of its weight files; loads no torch or weights."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_registry.core.errors import InputError, first_line
from pipelines.models.files import WEIGHTS_INDEX, weight_names
from pipelines.models.quantisation import quantised_as
from pipelines.models.text_config import text_setting

_CONFIG, _ADAPTER_CONFIG = "config.json", "adapter_config.json"
_MAX_HEADER_BYTES = 100 << 20


@dataclass(frozen=True)
class ModelSummary:
    """Figures of a model directory.

    Attributes:
        architecture: the class name in transformers, or ``PEFT`` and the adapter's type.
        model_type: transformers' name for the model family.
        num_parameters: the number of elements stored in the weight files.
        dtypes: the number of elements for each number format.
        size_bytes: the size of all weight files together.
        hidden_size: the width of the model; None where the configuration does not say.
        num_layers: the number of layers; None where the configuration does not say.
        vocab_size: the size of the vocabulary; None where the configuration does not say.
        has_tokenizer: whether the directory has a tokenizer.
        has_chat_template: whether the directory has a chat template.
        adapts: the model that an adapter adapts; None for a full model.
        problems: the reasons why the model could not be loaded.
    """

    architecture: str
    model_type: str
    num_parameters: int
    dtypes: dict[str, int]
    size_bytes: int
    hidden_size: int | None = None
    num_layers: int | None = None
    vocab_size: int | None = None
    has_tokenizer: bool = False
    has_chat_template: bool = False
    adapts: str | None = None
    problems: tuple[str, ...] = field(default=())


def is_model(directory: Path) -> bool:
    """Whether a directory holds a model or an adapter in Hugging Face format."""
    return (directory / _CONFIG).is_file() or (directory / _ADAPTER_CONFIG).is_file()


def summarize_model(directory: Path) -> ModelSummary:
    """The figures of a model directory; damage is reported in ``problems``, not raised."""
    problems: list[str] = []
    config = _read_object(directory / _CONFIG, problems)
    adapter = _read_object(directory / _ADAPTER_CONFIG, problems)
    elements: Counter[str] = Counter()
    size = 0
    files = sorted(directory.glob("*.safetensors"))
    for file in files:
        size += file.stat().st_size
        try:
            elements.update(_elements(file))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
            problems.append(f"{file.name} is damaged: {error}")
    problems += _missing(directory, files)
    quantised = quantised_as(config)
    if quantised is not None:
        problems.append(f"its weights are {quantised}, and ogpsa works on unquantised ones")
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else "unknown"
    return ModelSummary(
        architecture=f"PEFT {adapter.get('peft_type', '')}".strip() if adapter else str(named),
        model_type=str(config.get("model_type", "")),
        num_parameters=sum(elements.values()),
        dtypes=dict(elements),
        size_bytes=size,
        hidden_size=text_setting(config, "hidden_size"),
        num_layers=text_setting(config, "num_hidden_layers"),
        vocab_size=text_setting(config, "vocab_size"),
        has_tokenizer=any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model")),
        has_chat_template=_has_template(directory),
        adapts=str(adapter.get("base_model_name_or_path")) if adapter else None,
        problems=tuple(problems),
    )


def _missing(directory: Path, files: list[Path]) -> list[str]:
    """What is wrong with the names of the weight files, by the rules of loading."""
    if not files and not (directory / WEIGHTS_INDEX).is_file():
        return ["it holds no weights (no .safetensors file)"]
    try:
        names = weight_names(directory)
    except InputError as error:
        return [error.what]
    found = {file.name for file in files}
    return [f"{name} is missing" for name in names if name not in found and not (directory / name).is_file()]


def _elements(file: Path) -> Counter[str]:
    """Count a safetensors file's elements for each number format from its header; check that the file is complete."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > _MAX_HEADER_BYTES:
            raise ValueError("it is no safetensors file")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("it is no safetensors file")
    counts: Counter[str] = Counter()
    end = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            counts[tensor["dtype"]] += math.prod(tensor["shape"])
            end = max(end, tensor["data_offsets"][1])
    size, whole = file.stat().st_size, 8 + length + end
    if size != whole:
        raise ValueError(f"it has {size} bytes and should have {whole}")
    return counts


def _read_object(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path.name} cannot be read: {first_line(error)}")
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path.name} holds no JSON object")
        return {}
    return content


def _has_template(directory: Path) -> bool:
    if (directory / "chat_template.jinja").is_file():
        return True
    return bool(_read_object(directory / "tokenizer_config.json", []).get("chat_template"))
