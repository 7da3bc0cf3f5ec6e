"""Merging a fine-tuned adapter or model with a safe one, from directories or from tensors in memory."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from torch import Tensor

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, InputError
from pipelines.configs.merge import MergeConfig
from pipelines.core.config import resolve
from pipelines.core.making import find
from pipelines.merging.layer_records import LayerRecord
from pipelines.merging.making import make_results, open_merge, wanted_results
from pipelines.merging.sources import merge_inputs, resolve_sources

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class MergedWeights:
    """What a merge made.

    Attributes:
        records: one for each layer: its cosine, what was done to it, norms and ranks.
        path: the artifact with the result; None for tensors in memory.
        tensors: the factors of the merged adapter, by the names of ``peft.get_peft_model_state_dict``; None for an
            artifact.
        config: the settings of PEFT's ``LoraConfig`` that belong to them; None for an artifact.
    """

    records: list[LayerRecord]
    path: Path | None = None
    tensors: dict[str, Tensor] | None = None
    config: dict[str, Any] | None = None


class MergeOptions(TypedDict, total=False):
    """Further options of :func:`merge_adapters`: those of ``ogpsa merge``, with its defaults.

    Attributes:
        merge_type: how ``"safemerge"`` merges a layer: ``"linear"`` (the default), ``"ties"`` or ``"dare-linear"``.
        weights: the weights of the fine-tuned and the safe change; (0.8, 0.2).
        cos_threshold: a layer whose cosine is below is repaired; 0.35.
        threshold: ``"auto"`` chooses the threshold such that the share ``merge_fraction`` of the layers is repaired.
        merge_fraction: from 0 to 1.
        density: the share of elements that ``"ties"`` and ``"dare-linear"`` keep.
        seed: the seed of what is random; 0.
        rank: the highest rank of the result's layers; the exact sum by default.
        output: ``"adapter"``, ``"model"`` or ``"report"``; for references.
        original_semantics: compute as the published scripts do; for references.
        allow_unpaired: go on where a layer is on one side only.
        max_shard_gb: the size of a weight file of an output model.
        workers: threads that read ahead.
        overwrite: replace another artifact at ``out``.
    """

    merge_type: str
    weights: tuple[float, float]
    cos_threshold: float
    threshold: Literal["fixed", "auto"]
    merge_fraction: float
    density: float
    seed: int
    rank: int
    output: Literal["auto", "adapter", "model", "report"]
    original_semantics: bool
    allow_unpaired: bool
    max_shard_gb: float
    workers: int
    overwrite: bool


def merge_adapters(
    finetuned: str | Path | Tensors,
    safe: str | Path | Tensors | None = None,
    *,
    out: str | Path | None = None,
    config: Any = None,
    safe_config: Any = None,
    base: str | Path | None = None,
    aligned: str | Path | Tensors | None = None,
    unaligned: str | Path | Tensors | None = None,
    method: str = "safemerge",
    **options: Unpack[MergeOptions],
) -> MergedWeights:
    """Merge as ``ogpsa merge`` does, whose options the arguments are.

    Directories, runs of ogpsa and hub ids give an artifact at ``out``, as the command does. Tensors of a LoRA adapter
    (``peft.get_peft_model_state_dict(model)``) give tensors, with the command's bits, and nothing is left on the disk.

    Args:
        finetuned: what fine-tuning made: a reference of an adapter or full model, or an adapter's tensors.
        safe: the safe one of the same sort; None where the method takes none (``"safelora"``).
        out: the directory of the artifact; for references, and needed there.
        config: for tensors: the fine-tuned adapter's ``peft.LoraConfig``, or a dict of its settings.
        safe_config: that of the safe adapter; by default the same.
        base: the model below adapters, by default the one that they name; for references.
        aligned: for methods with a criterion, the aligned model: by default the base; for tensors a reference, or the
            weights by name (``model.state_dict()``).
        unaligned: the same model before its alignment.
        method: ``"safemerge"``, ``"safelora"``, ``"linear"``, ``"ties"`` or ``"dare-linear"``.
        options: see :class:`MergeOptions`.

    Raises:
        ConfigError: arguments do not go together.
        InputError: weights are missing, damaged, not finite, of a sort that cannot be merged, or do not fit.
        ArtifactError: something else lies at ``out``.
        NumericsError: what comes out does not fit into the adapters' dtype.
    """
    in_memory = isinstance(finetuned, Mapping)
    models = {"finetuned": finetuned, "safe": safe, "aligned": aligned, "unaligned": unaligned}
    _check_sorts(in_memory, models, out, config)
    named = {name: name if in_memory else str(value) for name, value in models.items() if value is not None}
    own = {"method": method, "out": "merged" if out is None else out, **({} if base is None else {"base": str(base)})}
    settings = _settings({**named, **own, **options})
    if isinstance(finetuned, Mapping):
        from pipelines.api.tensor_merge import AdapterTensors, merge_tensors

        assert safe is None or isinstance(safe, Mapping), "checked above"
        other = None if safe is None else AdapterTensors(safe, config if safe_config is None else safe_config)
        merged = merge_tensors(settings, AdapterTensors(finetuned, config), other, aligned, unaligned)
        return MergedWeights(merged.records, None, merged.tensors, merged.config)
    sources = resolve_sources(settings)
    wanted = wanted_results(settings, merge_inputs(sources))
    for each in wanted:
        # An obstacle at the output is reported before the weights are opened.
        find(each)
    (made,) = make_results(open_merge(settings, sources), settings, sources, wanted).merged
    return MergedWeights(made.records, made.path)


def _check_sorts(in_memory: bool, models: Mapping[str, Any], out: Any, config: Any) -> None:
    for name, value in models.items():
        if value is not None and not isinstance(value, str | Path | Mapping):
            raise InputError(f"{name} is a {type(value).__name__}, not a directory, a hub id or tensors by name")
    if in_memory:
        if config is None:
            raise ConfigError(
                "tensors of an adapter have no scaling without their settings",
                fix="give  config=model.peft_config['default'],  or a dict with r and lora_alpha",
            )
        if out is not None:
            raise ConfigError("tensors are merged in memory, and out has no effect", fix="save .tensors of the result")
        if models["safe"] is not None and not isinstance(models["safe"], Mapping):
            raise ConfigError("finetuned are tensors and safe is a reference: give two of the same sort")
        return
    odd = [name for name, value in models.items() if isinstance(value, Mapping)]
    if odd:
        raise ConfigError(f"finetuned is a reference and {odd[0]} are tensors: give the same sort")
    if config is not None:
        raise ConfigError("config is for tensors; a directory has its own adapter_config.json")
    if out is None:
        raise ConfigError("out is needed: the directory of the result")


def _settings(given: dict[str, Any]) -> MergeConfig:
    """The options as the command checks them.

    Raises:
        ConfigError: they are unknown, or do not go together; the message lists all problems.
    """
    known = {*MergeOptions.__annotations__, *inspect.signature(merge_adapters).parameters}
    if unknown := [name for name in given if name not in known]:
        raise ConfigError([f"unknown option '{name}' of merge_adapters{suggest(name, known)}" for name in unknown])
    threshold = given.get("cos_threshold")
    if threshold is not None:
        if isinstance(threshold, list | tuple):
            raise ConfigError("merge_adapters makes one result: cos_threshold is one number")
        given["cos_threshold"] = [threshold]
    if "weights" in given:
        given["weights"] = list(given["weights"])
    return resolve(MergeConfig, flags=given)
