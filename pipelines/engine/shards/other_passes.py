"""Forward passes through a ZeRO 3 engine's model that visit modules in another order than training does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn


@contextlib.contextmanager
def in_another_order(engine: Any | None, called: nn.Module) -> Iterator[None]:
    """A context for passes without gradients in which modules are visited in an order that training does not know.

    ZeRO 3 remembers the order of a pass to fetch weights ahead. If it met another one within a pass that keeps
    gradients, weights that the backward pass needs would be released; so it learns the order anew before and after.

    Args:
        engine: the DeepSpeed engine, or None.
        called: the module that is called for each pass; it may lie within the engine's.
    """
    offload = getattr(getattr(engine, "optimizer", None), "parameter_offload", None)
    if offload is None:
        yield
        return
    coordinator = offload.get_param_coordinator()
    _forget_order(coordinator)
    # DeepSpeed hooks the beginning of a pass to the engine's own module alone.
    within = called is not engine.module  # type: ignore[union-attr]
    hook = called.register_forward_pre_hook(lambda *_: coordinator.reset_step(), prepend=True) if within else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()
        _forget_order(coordinator)


def _forget_order(coordinator: Any) -> None:
    if not coordinator.is_invalid_trace():
        coordinator._invalidate_trace()
