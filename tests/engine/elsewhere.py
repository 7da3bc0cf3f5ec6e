"""A device that is not there: tensors that say they lie elsewhere, and refuse to meet tensors of the processor.

Their numbers are those of tensors on the processor inside them, so that everything can be computed, branched on and
compared; but as on a GPU, an operation on tensors of two devices is an error, and what is made without a device is on
the processor. The device calls itself ``meta``, since torch knows no other that needs nothing built. Indexing and
copying may cross devices, as they may with a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")
_CROSSING = ("copy_", "index", "index_put", "index_put_", "_index_put_impl_")


class Elsewhere(torch.Tensor):
    """A tensor of the device; ``inner`` has its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE,
        )  # fmt: skip
        return made

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.inner})"

    def item(self) -> Any:
        return self.inner.item()

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __getitem__(self, index: Any) -> Any:
        # torch makes an index of a list on the tensor's own device without asking any mode.
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    tensors: list[torch.Tensor] = []
    targets: list[torch.device] = []

    def look(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors.append(value)
        if isinstance(value, torch.device):
            targets.append(value)
            return torch.device("cpu")
        return value

    args, kwargs = tree_map(look, (args, kwargs))
    is_there = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    here = [tuple(each.shape) for each in tensors if not isinstance(each, Elsewhere) and each.dim() > 0]
    if targets:
        is_there = targets[0] == DEVICE
    elif name == "copy_":
        is_there = isinstance(args[0], Elsewhere)
    elif is_there and here and name not in _CROSSING:
        raise RuntimeError(f"{func}: tensors on two devices; those of shapes {here} are on the processor")
    outer: dict[int, Elsewhere] = {}

    def unwrap(value: Any) -> Any:
        if isinstance(value, Elsewhere):
            outer[id(value.inner)] = value
            return value.inner
        return value

    found = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    if name == "_local_scalar_dense":
        return found

    def wrap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not is_there:
            return value
        # What changed in place is still the tensor that it was.
        return outer[id(value)] if id(value) in outer else Elsewhere(value)

    return tree_map(wrap, found)


def _moving(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``torch.tensor`` puts numbers on a device without asking any mode."""

    def made(data: Any, *args: Any, device: Any = None, **options: Any) -> torch.Tensor:
        tensor = data if isinstance(data, torch.Tensor) else make(data, *args, **options)
        tensor = tensor.to(options["dtype"]) if "dtype" in options else tensor
        return tensor if device is None else tensor.to(device)

    return made


@contextlib.contextmanager
def a_device_elsewhere() -> Iterator[torch.device]:
    """A context in which there is a second device."""
    enabled = torch.is_autocast_enabled
    with (
        mock.patch.object(torch, "tensor", _moving(torch.tensor)),
        mock.patch.object(torch, "as_tensor", _moving(torch.as_tensor)),
        mock.patch.object(torch, "is_autocast_enabled", lambda kind="cpu": kind != "meta" and enabled(kind)),
        _Mode(),
    ):
        yield DEVICE


def moved(module: nn.Module) -> nn.Module:
    """The module with its parameters and buffers on the device; shared ones stay shared."""
    made: dict[int, nn.Parameter] = {}
    for inner in module.modules():
        for name, parameter in inner._parameters.items():
            if parameter is not None:
                there = made.setdefault(
                    id(parameter),
                    nn.Parameter(Elsewhere(parameter.detach().clone()), requires_grad=parameter.requires_grad),
                )
                inner._parameters[name] = there
        for name, buffer in inner._buffers.items():
            inner._buffers[name] = None if buffer is None else Elsewhere(buffer)
    return module
