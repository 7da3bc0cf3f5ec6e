"""The model inside what users hand over: without wrappers, checked, and with the loss head while it is needed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DataParallel, DistributedDataParallel

from data_registry.core.errors import EngineError, InputError
from pipelines.passes.log_probs import add_loss_head

_OWN_COMMAND = "train with the commands (--zero 3), or with projected(...) of a Trainer under DeepSpeed"


def bare_model(model: Any) -> nn.Module:
    """The model without DistributedDataParallel around it.

    Raises:
        InputError: it is no ``torch.nn.Module``, or has no parameter that is trained.
        EngineError: its parameters are spread over ranks, or copied to several devices of one process.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    if isinstance(model, DataParallel):
        raise EngineError(
            "projection does not serve torch.nn.DataParallel, whose replicas have no gradients of their own",
            fix="use DistributedDataParallel, one process for each GPU (torchrun)",
        )
    if not isinstance(model, nn.Module):
        raise InputError(f"a model is needed, a torch.nn.Module, and this is a {type(model).__name__}")
    _refuse_spread(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            f"no parameter of this {type(model).__name__} is trained: all have requires_grad=False",
            fix="set requires_grad on those that training changes",
        )
    return model


def _refuse_spread(model: nn.Module) -> None:
    if any(type(inner).__name__ == "FullyShardedDataParallel" for inner in model.modules()):
        raise EngineError("projection does not serve FSDP (FullyShardedDataParallel)", fix=_OWN_COMMAND)
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor):
            raise EngineError(
                "projection does not serve parameters that FSDP2 or tensor parallelism spread over ranks (DTensor)",
                where=name,
                fix=_OWN_COMMAND,
            )
        if hasattr(parameter, "ds_id"):
            raise EngineError(
                "a loop of one's own is not served under DeepSpeed's ZeRO 3, which spreads parameters over ranks",
                where=name,
                fix="build the basis with  ogpsa build-basis --zero 3,  and train with projected(...) of a Trainer",
            )


def causal_model(model: Any) -> Any:
    """The language model itself: inside an engine, and below PEFT's adapters."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "peft_config") and hasattr(inner, "get_base_model") else inner


def takes_loss_head(model: Any) -> bool:
    """Whether the language model is one of transformers' with a head, to which the loss head can be added."""
    inner = causal_model(model)
    return hasattr(inner, "config") and hasattr(inner, "get_output_embeddings") and hasattr(inner, "base_model_prefix")


@contextmanager
def loss_head(model: Any) -> Iterator[None]:
    """A context in which the model has the loss head of TRL's trainers; it is removed again if it was not there.

    With one head for reference passes and for training, both see the same bits.
    """
    inner = causal_model(model)
    if _has_loss_head(inner):
        yield
        return
    own = inner.__dict__.get("forward")
    add_loss_head(inner)
    try:
        yield
    finally:
        if own is None:
            del inner.forward
        else:
            inner.forward = own


def _has_loss_head(model: Any) -> bool:
    # Wrappers such as accelerate's autocast hide the signature and keep what they wrap.
    forward = model.forward
    while forward is not None:
        try:
            if "fused_lm_head" in inspect.signature(forward, follow_wrapped=False).parameters:
                return True
        except (TypeError, ValueError):
            return False
        forward = getattr(forward, "__wrapped__", None)
    return False
