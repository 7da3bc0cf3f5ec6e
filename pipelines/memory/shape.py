"""The tensors of a model, from its configuration alone: the model is built without memory behind its weights."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from pipelines.models.files import CONFIG
from pipelines.models.foreign import foreign_files
from pipelines.models.loading import quiet
from pipelines.models.lora import add_adapters


@dataclass(frozen=True)
class Lora:
    """Adapters that are trained: their rank, and the modules that they adapt as ``--lora-targets`` names them."""

    rank: int
    targets: str


@dataclass(frozen=True)
class ModelShape:
    """The numbers of elements of a model's tensors.

    Attributes:
        trained: those of the tensors that are trained, tied ones once.
        frozen: the sum of those that are not.
    """

    trained: tuple[int, ...]
    frozen: int

    @property
    def num_trained(self) -> int:
        """The number of elements that are trained."""
        return sum(self.trained)

    @property
    def num_parameters(self) -> int:
        """The number of all elements."""
        return self.num_trained + self.frozen

    @property
    def largest(self) -> int:
        """The number of elements of the largest tensor that is trained."""
        return max(self.trained, default=0)


def build(
    directory: Path,
    *,
    lora: Lora | None,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    layers: int | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """A model in its architecture, on the device that is torch's default now.

    Args:
        directory: where its configuration lies.
        lora: the adapters that are trained; None if all parameters are.
        dtype: the number format of the weights.
        attention: the attention implementation, by default the library's choice.
        layers: how many layers it has instead of its own number.
        trust_remote_code: whether code of the model's own may be run.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with quiet(), foreign_files(f"'{directory}' cannot be built", where=str(directory / CONFIG)):
        config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
        if layers is not None:
            config.get_text_config().num_hidden_layers = layers
        chosen = {} if attention is None else {"attn_implementation": attention}
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code, **chosen)
        if lora is None:
            return model
        settings = {"rank": lora.rank, "alpha": 1.0, "dropout": 0.0, "targets": lora.targets}
        # Tensors without values cannot be moved, and all are on one device here.
        with mock.patch.object(torch.nn.Module, "to", lambda module, *args, **kwargs: module):
            adapted = add_adapters(model, settings, seed=0)
        for parameter in adapted.parameters():
            parameter.data = parameter.data.to(dtype)
        return adapted


@functools.cache
def shape_of(directory: Path, *, lora: Lora | None = None, trust_remote_code: bool = False) -> ModelShape:
    """The tensors of a model; ``lora`` as for :func:`build`."""
    with torch.device("meta"):
        model = build(directory, lora=lora, trust_remote_code=trust_remote_code)
    trained, frozen = [], 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            trained.append(parameter.numel())
        else:
            frozen += parameter.numel()
    return ModelShape(tuple(trained), frozen)
