"""Checks, before gigabytes are read, that a model directory holds everything needed to load the whole model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from data_registry.core.documents import suggest
from data_registry.core.errors import InputError, first_line
from pipelines.models.foreign import foreign_files
from pipelines.models.quantisation import is_quantised_tensor, quantised_as
from pipelines.models.text_config import text_setting

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")

_DETERMINING = (
    *(CONFIG, GENERATION_CONFIG, ADAPTER_CONFIG, WEIGHTS_INDEX, "model*.safetensors", ADAPTER_WEIGHTS, "*.py"),
    *(
        "tokenizer*.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "tekken.json",
        "normalizer.json",
        "emoji.json",
    ),
    *("vocab*", "merges*", "*.model", "*.model.v*", "*.tiktoken", "*.bpe", "*.codes", "*.vocab", "bpe.*"),
    *("chat_template*.json", "*.jinja", "additional_chat_templates/*.jinja", "custom_generate/*.py"),
)
_PICKLED = ("pytorch_model*.bin", "adapter_model.bin", "*.pt", "*.pth", "*.ckpt")


def determining_files(directory: Path) -> list[Path]:
    """The files that a model's answers depend on: weights, configuration, tokenizer, template, code; not logs.

    The weights are those that an index names, whatever their names are, since these are the ones that are loaded.

    Raises:
        InputError: the index of the shards cannot be read, or names files outside the directory.
    """
    found = {file for pattern in _DETERMINING for file in directory.glob(pattern)}
    found |= {directory / name for name in weight_names(directory)}
    return sorted(file for file in found if file.is_file())


def check_config(directory: Path, trust_remote_code: bool) -> None:
    """Refuse a model whose configuration is not that of a causal language model that can be trained and measured.

    Raises:
        InputError: it is not, its weights are quantised, or its generation options cannot be read; the message names
            the model type, the architecture, the kind or the file.
    """
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    config = read_json(directory / CONFIG)
    where = str(directory / CONFIG)
    check_unquantised(config, directory)
    if (directory / GENERATION_CONFIG).is_file():
        # transformers goes on without a file that it cannot read, and so without the tokens that end an answer.
        read_json(directory / GENERATION_CONFIG)
    if "auto_map" in config and trust_remote_code:
        return  # Only the model's own code can say whether it is one.
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise InputError(f"the {CONFIG} of '{directory}' names no model_type", where=where)
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in config:
            raise InputError(
                f"'{directory}' brings its own code for model type '{model_type}'",
                where=where,
                fix="read that code; if you trust it, add --trust-remote-code",
            )
        raise InputError(
            f"transformers here does not know model type '{model_type}'{suggest(str(model_type), list(causal))}",
            where=where,
            fix="correct it, or install a transformers that has it",
        )
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise InputError(f"'architectures' must be a list of names, got {str(architectures)[:60]}", where=where)
    known = {name for names in causal.values() for name in ([names] if isinstance(names, str) else names)}
    if model_type not in causal or (architectures and not known.intersection(architectures)):
        found = ", ".join(architectures) or model_type
        raise InputError(
            f"'{directory}' is not a causal language model but {found}",
            where=where,
            fix="name a model that generates text (architecture ...ForCausalLM)",
        )
    masked = str(MODEL_FOR_MASKED_LM_MAPPING_NAMES.get(model_type, ""))
    if masked.endswith("ForMaskedLM") and not config.get("is_decoder"):
        raise InputError(
            f"'{directory}' is of type {model_type}, which reads text in both directions and so does not generate any",
            where=where,
            fix='name a model that generates text; one of this type that was trained to has  "is_decoder": true',
        )
    check_values(directory)


def check_unquantised(config: Mapping[str, Any], directory: Path) -> None:
    """Refuse a model whose weights are stored quantised: they are codes of numbers, which no gradient can change.

    Args:
        config: the model's configuration, as it was read.
        directory: the model, for the message.

    Raises:
        InputError: it is; the message names the kind.
    """
    found = quantised_as(config)
    if found is not None:
        raise InputError(
            f"the weights of '{directory}' are {found}; ogpsa trains, measures and merges unquantised weights",
            where=f"{found.setting} in {directory / CONFIG}",
            fix="name the model that it was made from; an adapter trained on it takes that model too, as "
            f"base_model_name_or_path in its {ADAPTER_CONFIG}",
        )


def check_values(directory: Path) -> None:
    """Refuse a configuration with values that transformers cannot use; one with code of its own is left alone.

    Raises:
        InputError: the file is damaged, or transformers refuses a value; the message quotes it.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    config = read_json(directory / CONFIG)
    model_type = config.get("model_type")
    if "auto_map" in config or not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        return
    with foreign_files(f"the {CONFIG} of '{directory}' cannot be used", where=str(directory / CONFIG)):
        AutoConfig.from_pretrained(directory)


def weight_names(directory: Path) -> list[str]:
    """Names of the files that must hold the weights, whether they are there or not.

    Raises:
        InputError: the index of the shards cannot be read, or names a file outside the directory.
    """
    if (directory / ADAPTER_CONFIG).is_file():
        return [ADAPTER_WEIGHTS]
    if (directory / WEIGHTS_INDEX).is_file() and not (directory / WEIGHTS).is_file():
        where = str(directory / WEIGHTS_INDEX)
        index = read_json(directory / WEIGHTS_INDEX)
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise InputError(f"'{WEIGHTS_INDEX}' has no weight_map", where=where)
        if not isinstance(index.get("metadata"), dict):
            raise InputError(
                f"'{WEIGHTS_INDEX}' has no metadata, which transformers needs", where=where, fix='add  "metadata": {}'
            )
        for name in weight_map.values():
            _check_shard_name(name, where)
        return sorted(set(weight_map.values()))
    return [WEIGHTS]


def _check_shard_name(name: Any, where: str) -> None:
    """Refuse names that lead out of the directory; whether the file itself is a link, as in the hub's cache, is free.

    Raises:
        InputError: it is such a name, or no name of a file with weights.
    """
    path = PurePosixPath(name) if isinstance(name, str) and name and "\0" not in name else None
    if path is None or path.suffix != ".safetensors":
        raise InputError(f"the weight_map names {str(name)[:80]!r}, which is no safetensors file", where=where)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise InputError(
            f"the weight_map names '{name[:80]}', which lies outside the model's directory",
            where=where,
            fix="put the file into the directory and name it without a path; do not load a model from somebody you "
            "do not trust",
        )


def has_weights(directory: Path) -> bool:
    """Whether all files with weights are there.

    Raises:
        InputError: the index of the shards cannot be read.
    """
    return all((directory / name).is_file() for name in weight_names(directory))


def check_weight_files(directory: Path) -> None:
    """Refuse weights that are pickled, missing, damaged or quantised.

    Raises:
        InputError: a file is pickled, missing or damaged, or holds quantised weights; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    names = weight_names(directory)
    if names in ([WEIGHTS], [ADAPTER_WEIGHTS]) and not has_weights(directory):
        raise _no_weights(directory, names[0])
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise InputError(
            f"'{directory}' is incomplete: {len(missing)} of {len(names)} weight files are missing",
            where=", ".join(missing[:3]) + (" ..." if len(missing) > 3 else ""),
            fix="copy or download the model again",
        )
    dtypes: dict[str, str] = {}
    for name in names:
        try:
            with safe_open(directory / name, framework="pt") as weights:
                own = {key: str(weights.get_slice(key).get_dtype()) for key in weights.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"the weight file '{name}' is damaged: {first_line(error)}",
                where=str(directory / name),
                fix="copy or download the model again",
            ) from error
        dtypes |= own
        quantised = next((key for key, dtype in own.items() if is_quantised_tensor(key, dtype)), None)
        if quantised is not None:
            raise InputError(
                f"the weights of '{directory}' are quantised: '{quantised}' is stored as {own[quantised]}",
                where=str(directory / name),
                fix="use the unquantised model that it was made from",
            )
    if (directory / CONFIG).is_file() and not (directory / ADAPTER_CONFIG).is_file():
        _check_plausible(read_json(directory / CONFIG), directory, len(dtypes), names)


def _check_plausible(config: Mapping[str, Any], directory: Path, num_tensors: int, names: Sequence[str]) -> None:
    """Refuse sizes that the files cannot hold, before a library builds a model of a billion layers.

    Raises:
        InputError: the configuration has more layers than tensors are stored, or sizes far beyond what is stored.
    """
    explicit = config.get("transformers_weights")
    if explicit is not None and explicit not in names:
        raise InputError(
            f"the {CONFIG} of '{directory}' names a weight file of its own, {str(explicit)[:60]!r}",
            where=f"transformers_weights in {directory / CONFIG}",
            fix=f"call the file {WEIGHTS} and take transformers_weights out",
        )
    layers, stored = text_setting(config, "num_hidden_layers"), _stored_bytes(directory, names)
    if layers is not None and layers > num_tensors:
        raise InputError(
            f"the {CONFIG} of '{directory}' asks for {layers} layers, and its files hold {num_tensors} tensors",
            where=f"num_hidden_layers in {directory / CONFIG}",
            fix="use the configuration that the weights were saved with",
        )
    for name in ("hidden_size", "vocab_size"):
        size = text_setting(config, name)
        if size is not None and size > stored:
            raise InputError(
                f"the {CONFIG} of '{directory}' asks for {name} {size}, and its files hold {stored} bytes",
                where=f"{name} in {directory / CONFIG}",
                fix="use the configuration that the weights were saved with",
            )


def _stored_bytes(directory: Path, names: Sequence[str]) -> int:
    return sum((directory / name).stat().st_size for name in names)


def _no_weights(directory: Path, expected: str) -> InputError:
    pickled = sorted(file.name for pattern in _PICKLED for file in directory.glob(pattern))
    if not pickled:
        return InputError(f"'{directory}' holds no weights: no {expected}", fix="copy or download the model again")
    if expected == ADAPTER_WEIGHTS:
        return InputError(
            f"the adapter '{directory}' is pickled ({pickled[0]}); only safetensors are read, since pickles run code",
            fix='convert it:  python -c "import torch; from safetensors.torch import save_file as s; '
            f"s(torch.load('{directory / pickled[0]}', weights_only=True), '{directory / expected}')\"",
        )
    return InputError(
        f"the weights of '{directory}' are pickled ({pickled[0]}); only safetensors are read, since pickles run code",
        fix='if you trust their origin, convert them:  python -c "from transformers import AutoModelForCausalLM as M; '
        f"M.from_pretrained('{directory}', use_safetensors=False).save_pretrained('{directory}-safetensors')\"",
    )


def first_mismatch(directory: Path) -> str | None:
    """The first weight whose stored shape differs from the shape that the configuration asks for, or None."""
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"), foreign_files("no model"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    except InputError:
        return None
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for file in (directory / name for name in weight_names(directory)):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a mapping
                shape = tuple(weights.get_slice(name).get_shape())
                if expected.get(name, shape) != shape:
                    return f"{name} is {list(shape)} in {file.name} and should be {list(expected[name])}"
    return None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise InputError(f"'{path.name}' cannot be read: it is nested too deeply", where=str(path)) from error
    except (OSError, ValueError) as error:
        raise InputError(f"'{path.name}' cannot be read: {first_line(error)}", where=str(path)) from error
    if not isinstance(content, dict):
        raise InputError(f"'{path.name}' holds no JSON object", where=str(path))
    return content
