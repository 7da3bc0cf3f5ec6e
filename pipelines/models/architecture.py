"""How a model stores its weights: what a tensor on disk is called in the model, what shares it, which way it lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_registry.core.errors import InputError
from pipelines.models.foreign import foreign_files


@dataclass(frozen=True)
class Architecture:
    """What the model's own code says of its weights, by the names that they have in the model.

    Attributes:
        shared: for each weight that several modules share, all of its names.
        transposed: the weights that are stored as ``[in, out]``: those of embeddings, of Conv1D layers (GPT-2) and of
            experts that multiply from the right.
        names: the name in the model for each tensor on disk whose name differs, as for checkpoints of an older layout.
        parameters: the shape of every parameter by its name, each once: a shared one under its first name.
    """

    shared: tuple[frozenset[str], ...] = ()
    transposed: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def name_of(self, stored: str) -> str:
        """What a tensor on disk is called in the model."""
        return self.names.get(stored, stored)

    def sharing(self, name: str) -> frozenset[str]:
        """The other names of a weight of the model."""
        return next((group - {name} for group in self.shared if name in group), frozenset())


def architecture_of(directory: Path, stored: Iterable[str]) -> Architecture | None:
    """The architecture of the model in a directory; loads no weights.

    Args:
        directory: the model, its configuration checked.
        stored: the names of the tensors on disk.

    Returns:
        None where transformers cannot build the model, as for models with code of their own.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with foreign_files("no model"), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    except InputError:
        return None
    owners: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), set()).add(name)
    shared = tuple(frozenset(names) for names in owners.values() if len(names) > 1)
    parameters = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return Architecture(shared, frozenset(_transposed(model)), _names(model, list(stored)), parameters)


def _transposed(model: Any) -> Iterable[str]:
    from torch.nn import Embedding
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, Conv1D | Embedding):
            yield f"{name}.weight"
        elif getattr(module, "is_transposed", False) is True:
            own = module.named_parameters(recurse=False)
            yield from (f"{name}.{part}" for part, parameter in own if parameter.dim() == 3)


def _names(model: Any, stored: list[str]) -> dict[str, str]:
    """The names in the model of tensors that are called otherwise on disk; of those that are put together, none."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    own = model.state_dict()
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    found: dict[str, list[str]] = {}
    for name in stored:
        renamed, converted = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        if converted is None and renamed in own:
            found.setdefault(renamed, []).append(name)
    return {names[0]: renamed for renamed, names in found.items() if len(names) == 1 and names[0] != renamed}
