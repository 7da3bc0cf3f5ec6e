"""Merging adapters that are in memory: they are laid down for the time of the merge, and merged as those of files are.

The files are temporary. What is known of adapters on disk (their features, refusals and arithmetic) so holds for those
in memory as well, to the bit.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from data_registry.core.errors import ConfigError, InputError
from pipelines.configs.merge import MergeConfig
from pipelines.merging.adapter_merge import write_adapters
from pipelines.merging.adapters import Adapter, open_adapter
from pipelines.merging.layer_records import LayerRecord
from pipelines.merging.layers import Direction, Layer, pair_adapters
from pipelines.merging.making import rule_of, thresholds_of
from pipelines.merging.measuring import AdapterMerge, report_adapters
from pipelines.merging.output import changed_settings
from pipelines.merging.target import Target
from pipelines.models.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pipelines.models.reference import ModelSource, resolve_model
from pipelines.weights.stored import Stored, open_checkpoint, read_header
from pipelines.weights.writing import write_tensors


@dataclass(frozen=True)
class AdapterTensors:
    """A LoRA adapter in memory.

    Attributes:
        tensors: its factors, by the names of ``peft.get_peft_model_state_dict``.
        config: its ``peft.LoraConfig``, or a dict of its settings.
    """

    tensors: Mapping[str, Tensor]
    config: Any

    def lie_down(self, directory: Path) -> Adapter:
        """The adapter as an opened one, its files in a directory.

        Raises:
            InputError: it is no LoRA adapter, or cannot be merged; the message says why.
        """
        directory.mkdir()
        settings = dict(self.config) if isinstance(self.config, Mapping) else self.config.to_dict()
        settings = {"peft_type": "LORA", **settings}
        settings["peft_type"] = str(getattr(settings["peft_type"], "value", settings["peft_type"]))
        (directory / ADAPTER_CONFIG).write_text(json.dumps(settings, default=_plain), encoding="utf-8")
        odd = [name for name, value in self.tensors.items() if not isinstance(value, Tensor)]
        if odd or not self.tensors:
            raise InputError(
                f"'{odd[0]}' of the {directory.name} adapter is no tensor" if odd else "an adapter has no tensors"
            )
        write_tensors(directory / ADAPTER_WEIGHTS, {key: value.detach().cpu() for key, value in self.tensors.items()})
        name = f"{directory.name} (tensors in memory)"
        return open_adapter(ModelSource(name, str(directory), directory))


def _plain(value: Any) -> Any:
    # Sets of module names and enumerations are what PEFT's settings hold beside JSON's own types.
    return sorted(value) if isinstance(value, set | frozenset) else str(getattr(value, "value", value))


@dataclass(frozen=True)
class MergedTensors:
    """The result: what became of each layer, its factors, and the settings that belong to them."""

    records: list[LayerRecord]
    tensors: dict[str, Tensor]
    config: dict[str, Any]


def merge_tensors(
    options: MergeConfig, finetuned: AdapterTensors, safe: AdapterTensors | None, aligned: Any, unaligned: Any
) -> MergedTensors:
    """Merge two adapters in memory.

    Args:
        options: method, weights, threshold and so on, as ``ogpsa merge`` has them.
        finetuned: the adapter that is to be repaired.
        safe: the adapter that is merged in; None where the method takes none.
        aligned: the aligned model for the criterion, a reference or tensors by name; None without criterion.
        unaligned: the unaligned one, likewise.

    Raises:
        ConfigError: options are for references, or the criterion lacks a model.
        InputError: tensors cannot be merged, are not finite, or do not fit.
        NumericsError: what comes out does not fit into the adapters' dtype.
    """
    if options.original_semantics or options.output not in ("auto", "adapter") or options.base is not None:
        raise ConfigError("base, output and original_semantics are for directories, not for tensors in memory")
    if options.needs_criterion and aligned is None:
        raise ConfigError("the criterion needs aligned, the model that the adapters change, beside unaligned")
    with tempfile.TemporaryDirectory(prefix="ogpsa-merge-") as folder:
        place = Path(folder)
        adapter = finetuned.lie_down(place / "finetuned")
        other = None if safe is None else safe.lie_down(place / "safe")
        layers = pair_adapters(adapter, other, None, allow_unpaired=options.allow_unpaired)
        if options.needs_criterion:
            names = {layer.weight_name for layer in layers if layer.finetuned is not None}
            before, after = (
                _lay_down(value, names, place / f"{role}.safetensors", role)
                for role, value in (("unaligned", unaligned), ("aligned", aligned))
            )
            layers = [_directed(adapter, layer, after, before) for layer in layers]
        merge = AdapterMerge(adapter, other, layers, rule_of(options), workers=1)
        threshold = thresholds_of(options, _report(merge, options))[0] if options.needs_criterion else None
        target = Target(threshold, place / "merged")
        target.directory.mkdir()
        write_adapters(merge, [target], options.rank)
        shapes = {name: (module.rank, module.scaling) for name, module in adapter.modules.items()}
        config = {**adapter.config, **changed_settings(shapes, target.shapes)}
        return MergedTensors(target.records, load_file(target.directory / ADAPTER_WEIGHTS), config)


def _report(merge: AdapterMerge, options: MergeConfig) -> list[LayerRecord]:
    return report_adapters(merge, options.cos_threshold[0]) if options.threshold == "auto" else []


def _lay_down(weights: Any, names: set[str], file: Path, role: str) -> Mapping[str, Stored]:
    """Where the weights of adapted modules lie: in the model's own files, or in a temporary one."""
    if not isinstance(weights, Mapping):
        opened = open_checkpoint(resolve_model(str(weights)))
        return {name: opened.need(name) for name in names}
    missing = sorted(names - set(weights))
    if missing:
        raise InputError(
            f"the {role} weights lack '{missing[0]}', which the adapter changes",
            fix="give state_dict() of the model itself, without adapters",
        )
    write_tensors(file, {name: weights[name].detach().cpu() for name in sorted(names)})
    return read_header(file)


def _directed(adapter: Adapter, layer: Layer, aligned: Mapping[str, Stored], unaligned: Mapping[str, Stored]) -> Layer:
    module = layer.finetuned
    if module is None:
        return layer
    one, other = aligned[layer.weight_name], unaligned[layer.weight_name]
    swapped = (module.shape[1], module.shape[0])
    if one.shape != other.shape or one.shape not in (module.shape, swapped):
        raise InputError(
            f"the adapter changes '{layer.name}' as {list(module.shape)}; the aligned weight is {list(one.shape)} and "
            f"the unaligned one {list(other.shape)}",
            fix="use the models that the adapter was trained on and from",
        )
    square = module.shape == swapped
    transposed = module.is_embedding or bool(adapter.config.get("fan_in_fan_out")) if square else one.shape == swapped
    return replace(layer, direction=Direction(one, other, transposed))
