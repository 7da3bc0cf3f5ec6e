"""LoRA adapters on disk: which modules they change, their LoRA rank and scaling; what cannot be merged is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_registry.core.errors import InputError
from pipelines.merging.factors import Factors
from pipelines.models.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_weight_files, read_json
from pipelines.models.reference import ModelSource, model_directory
from pipelines.weights.stored import DTYPES, Stored, check_finite, read_header

PREFIX = "base_model.model."
_SIDES = {".lora_A.weight": "A", ".lora_B.weight": "B", ".lora_embedding_A": "A", ".lora_embedding_B": "B"}
_MERGED_FIRST = "merge it into its base model first and give the full models to ogpsa merge"
# What changes the meaning of the factors: name of the option, and what it is.
_REFUSED = {
    "use_dora": "DoRA, whose change is not linear in its factors",
    "modules_to_save": "whole modules saved beside the factors (modules_to_save)",
    "target_parameters": "factors for parameters that hold several matrices (target_parameters)",
    "trainable_token_indices": "trained rows of the embedding (trainable_token_indices)",
    "lora_bias": "a bias inside the factors (lora_bias)",
    "layer_replication": "replicated layers (layer_replication)",
    "use_qalora": "QA-LoRA, whose factors are grouped",
    "alora_invocation_tokens": "an activated LoRA, which changes only some tokens",
    "use_bdlora": "block-diagonal factors (use_bdlora)",
    "arrow_config": "a router over adapters (arrow_config)",
    "kasa_config": "KaSA, which changes the base weights",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA, whose factors are random",
}
_REFUSED_STARTS = ("pissa", "olora", "corda", "lora_ga", "loftq")


@dataclass(frozen=True)
class AdaptedModule:
    """One module that an adapter changes.

    Attributes:
        name: path of the module in the model.
        A: where the factor ``[r, in]`` lies.
        B: where the factor ``[out, r]`` lies.
        scaling: alpha over the rank, or over its root.
        is_embedding: an embedding, whose weight is stored as ``[in, out]``.
    """

    name: str
    A: Stored
    B: Stored
    scaling: float
    is_embedding: bool

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return self.A.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.B.shape[0], self.A.shape[1]

    def read(self) -> Factors:
        """The factors in their own dtype.

        Raises:
            InputError: they have values that are not finite.
        """
        A, B = self.A.read(), self.B.read()
        check_finite(A, self.A)
        check_finite(B, self.B)
        return Factors(A, B, self.scaling)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        source: where it comes from.
        directory: where its files lie.
        config: PEFT's configuration.
        modules: the modules that it changes, by module path.
        extras: other tensors in its file (biases, embeddings beside their factors), by the model's tensor name.
    """

    source: ModelSource
    directory: Path
    config: Mapping[str, Any]
    modules: Mapping[str, AdaptedModule]
    extras: Mapping[str, Stored]

    @property
    def dtype(self) -> torch.dtype:
        """The widest dtype of its factors."""
        found = torch.float8_e4m3fn
        for module in self.modules.values():
            for stored in (module.A, module.B):
                found = DTYPES[stored.dtype] if found is torch.float8_e4m3fn else _wider(found, DTYPES[stored.dtype])
        return found


def _wider(left: torch.dtype, right: torch.dtype) -> torch.dtype:
    return torch.promote_types(left, right)


def common_dtype(adapters: list[Adapter]) -> torch.dtype:
    """A dtype that holds the factors of all of them."""
    found = adapters[0].dtype
    for adapter in adapters[1:]:
        found = _wider(found, adapter.dtype)
    return found


def open_adapter(source: ModelSource) -> Adapter:
    """Read what an adapter changes, without its values.

    Raises:
        InputError: it is no LoRA adapter, has a feature that factors alone do not describe, its files are missing,
            damaged or pickled, or they do not fit its configuration.
    """
    directory = model_directory(source)
    config = read_json(directory / ADAPTER_CONFIG)
    _check_features(source, config, directory / ADAPTER_CONFIG)
    check_weight_files(directory)
    found = read_header(directory / ADAPTER_WEIGHTS)
    sides: dict[str, dict[str, Stored]] = {}
    extras = {}
    for key, stored in sorted(found.items()):
        name = key.removeprefix(PREFIX)
        suffix = next((suffix for suffix in _SIDES if name.endswith(suffix)), None)
        if suffix is None:
            _check_extra(source, name, stored)
            extras[name.replace(".base_layer.", ".")] = stored
        else:
            sides.setdefault(name.removesuffix(suffix), {})[_SIDES[suffix]] = stored
    if not sides:
        raise InputError(f"the adapter '{source.reference}' has no LoRA factors", where=str(directory))
    modules = {name: _module(source, name, pair, config) for name, pair in sides.items()}
    return Adapter(source, directory, config, modules, extras)


def _check_features(source: ModelSource, config: Mapping[str, Any], where: Path) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InputError(
            f"'{source.reference}' is an adapter of type {kind}; only LoRA adapters can be merged",
            where=f"peft_type in {where}",
            fix=_MERGED_FIRST,
        )
    refused = [(key, text) for key, text in _REFUSED.items() if config.get(key)]
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_REFUSED_STARTS):
        refused.append(("init_lora_weights", f"a start that changes the base weights ({start})"))
    if refused:
        key, text = refused[0]
        raise InputError(f"the adapter '{source.reference}' has {text}", where=f"{key} in {where}", fix=_MERGED_FIRST)


def _check_extra(source: ModelSource, name: str, stored: Stored) -> None:
    if ".lora_" in name or not name.endswith((".bias", ".weight")):
        raise InputError(
            f"the adapter '{source.reference}' has a tensor of unknown meaning: '{name}'",
            where=str(stored.file),
            fix=_MERGED_FIRST,
        )


def _module(source: ModelSource, name: str, pair: Mapping[str, Stored], config: Mapping[str, Any]) -> AdaptedModule:
    where = f"{name} in {next(iter(pair.values())).file}"
    if set(pair) != {"A", "B"}:
        raise InputError(f"the adapter '{source.reference}' has only factor {next(iter(pair))} of a pair", where=where)
    A, B = pair["A"], pair["B"]
    if not (A.is_float and B.is_float) or len(A.shape) != 2 or len(B.shape) != 2 or A.shape[0] != B.shape[1]:
        raise InputError(
            f"the factors of '{source.reference}' are no pair of matrices: A {A.dtype} {list(A.shape)}, "
            f"B {B.dtype} {list(B.shape)}",
            where=where,
            fix="only adapters of linear and embedding layers can be merged",
        )
    rank = _of_pattern(config.get("rank_pattern"), name, config.get("r"))
    if rank != A.shape[0]:
        raise InputError(
            f"the adapter '{source.reference}' says rank {rank}, and its factors have rank {A.shape[0]}",
            where=where,
            fix=f"use the {ADAPTER_CONFIG} that the factors were saved with",
        )
    alpha = _of_pattern(config.get("alpha_pattern"), name, config.get("lora_alpha"))
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise InputError(f"the adapter '{source.reference}' has no lora_alpha", where=where)
    if rank == 0 or alpha == 0:
        raise InputError(
            f"the factors of '{source.reference}' change nothing: rank {rank}, lora_alpha {alpha:g}",
            where=where,
            fix="use an adapter with a rank and an alpha, or the base model itself",
        )
    scaling = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    return AdaptedModule(name, A, B, scaling, "lora_embedding" in A.name)


def _of_pattern(pattern: object, name: str, default: Any) -> Any:
    """A module's own value: of the first key that its path ends with, taken as PEFT does."""
    for key, value in pattern.items() if isinstance(pattern, dict) else ():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default
