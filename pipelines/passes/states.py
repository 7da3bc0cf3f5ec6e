"""The states that a model's head reads, looked at in the middle of a forward pass.

What is computed from them inside the pass is under the engine's rules: autocast is on, and under ZeRO 3 the weights of
the head can be gathered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from data_registry.core.errors import ConfigError


def bare_model(model: Any) -> Any:
    """The model of transformers inside what engines and adapters put around it."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def states_seen(model: Any, look: Callable[[Tensor], None]) -> Iterator[None]:
    """A context in which the states of the first forward pass are looked at.

    Args:
        model: the model, in whatever is around it.
        look: called with the states ``[rows, length, hidden]`` after the last norm, while the pass is under way.

    Raises:
        ConfigError: there was no forward pass that could be looked at.
    """
    seen: list[bool] = []

    def hook(module: Any, arguments: Any, outputs: Any) -> None:
        if not seen:
            seen.append(True)
            look(outputs.last_hidden_state)

    # Put on for this pass alone: engines put their own hooks on first, and see the model as it is.
    handle = bare_model(model).base_model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if not seen:
        raise ConfigError(
            "the model's forward pass cannot be looked into, as anchors need to",
            fix="leave out trainer.torch_compile, or the anchor",
        )


def can_narrow(model: Any) -> bool:
    """Whether :func:`states_narrowed` serves a model: one of transformers whose passes are not compiled.

    What is compiled does not notice a hook that comes later.
    """
    while True:
        if hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None:
            return False
        if not hasattr(model, "module"):
            break
        model = model.module
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    trunk = getattr(bare, "base_model", None)
    compiled = any(getattr(each, "_compiled_call_impl", None) is not None for each in (bare, trunk))
    return isinstance(trunk, nn.Module) and trunk is not bare and not compiled


@contextmanager
def states_narrowed(model: Any, narrow: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A context in which the head of a model reads only some of the states.

    Args:
        model: one that :func:`can_narrow` holds for.
        narrow: gives from the states ``[rows, length, hidden]`` those that the head is to read.
    """

    def hook(module: Any, arguments: Any, outputs: Any) -> Any:
        outputs.last_hidden_state = narrow(outputs.last_hidden_state)
        return outputs

    # Put on for this pass alone, after the hooks of engines, which see the model's own states.
    handle = bare_model(model).base_model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def padded(rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device) -> dict[str, Tensor]:
    """A batch of rows in tokens, padded on the right: a causal model's states at the rows' own places do not see it."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_token_id)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def pass_for_states(forward: Any, model: Any, batch: dict[str, Tensor], look: Callable[[Tensor], None]) -> None:
    """A forward pass for the sake of its states. Collective where the engine's passes are.

    Args:
        forward: the callable that takes a batch.
        model: the model, in whatever is around it.
        batch: the model's inputs.
        look: called with the states ``[rows, length, hidden]``.
    """
    # The logits of one position are the fewest that a model gives, and nobody looks at them.
    with states_seen(model, look):
        forward(**batch, use_cache=False, **({"logits_to_keep": 1} if keeps_logits(model) else {}))


def keeps_logits(model: Any) -> bool:
    """Whether a model's forward pass can be told at which positions to give logits."""
    return "logits_to_keep" in inspect.signature(bare_model(model).forward).parameters


def at_places(states: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """The states ``[T, hidden]`` at places of the rows of a batch, one row after the other."""
    rows = [index for index, of_row in enumerate(places) for _ in of_row]
    columns = [place for of_row in places for place in of_row]
    device = states.device
    return states[
        torch.tensor(rows, dtype=torch.int64, device=device), torch.tensor(columns, dtype=torch.int64, device=device)
    ]
