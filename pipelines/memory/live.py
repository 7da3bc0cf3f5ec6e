"""Bytes of tensors that are alive, counted as operations make tensors and as the last reference to them goes."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """A context that counts the storages of tensors that operations make, real or without memory behind them.

    Args:
        known: tensors from before, which are not counted.

    Attributes:
        live: the bytes of all counted storages that are alive.
        peak: the largest value of ``live`` so far.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self._known = [tensor.untyped_storage() for tensor in known]
        self._seen = {storage._cdata for storage in self._known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry the operation out, and count what it has newly made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            # Tensors on the meta device have a number of bytes, and no memory.
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_meta:
                self.count(tensor)
        return made

    def count(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is gone."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._seen:
            return
        self._seen.add(storage._cdata)
        num_bytes = storage.nbytes()
        weakref.finalize(storage, self._gone, storage._cdata, num_bytes)
        self.live += num_bytes
        self.peak = max(self.peak, self.live)

    def _gone(self, key: int, num_bytes: int) -> None:
        self._seen.discard(key)
        self.live -= num_bytes
