"""Passes through a model in the middle of its training that leave no trace in the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def modes_and_rng_kept(module: nn.Module, *, training: bool) -> Iterator[None]:
    """A context in which ``module`` is in the given mode; afterwards all modes and generators are as before."""
    modes = {inner: inner.training for inner in module.modules()}
    rng = torch.get_rng_state()
    cuda_rng = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        module.train(training)
        yield
    finally:
        for inner, mode in modes.items():
            inner.training = mode
        torch.set_rng_state(rng)
        if cuda_rng is not None:
            torch.cuda.set_rng_state_all(cuda_rng)


@contextmanager
def checkpointing_without_dropout(module: nn.Module) -> Iterator[None]:
    """A context in which layers of a module in evaluation mode recompute their activations, if they do so in training.

    transformers' layers recompute in training mode alone, and a pass that needs gradients would otherwise hold the
    activations of all of them at once. Within its forward pass a layer is in evaluation mode like all others.
    """
    layers = [
        inner
        for inner in module.modules()
        if isinstance(inner, GradientCheckpointingLayer) and inner.gradient_checkpointing
    ]
    checkpoints = [layer._gradient_checkpointing_func for layer in layers]
    try:
        for layer, checkpoint in zip(layers, checkpoints, strict=True):
            layer._gradient_checkpointing_func = _evaluating(layer, checkpoint)
            layer.training = True
        yield
    finally:
        for layer, checkpoint in zip(layers, checkpoints, strict=True):
            layer._gradient_checkpointing_func = checkpoint
            layer.training = False


def _evaluating(layer: nn.Module, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    def recomputed(function: Callable[..., Any], *args: Any) -> Any:
        def evaluated(*inputs: Any) -> Any:
            # Also when the backward pass computes it again.
            layer.training = False
            try:
                return function(*inputs)
            finally:
                layer.training = True

        return checkpoint(evaluated, *args)

    return recomputed
