"""Passes through a model in the middle of its training that leave no trace in the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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
