"""What forward and backward pass hold at once: the passes are gone through without memory behind any tensor.

Every operation of model and loss head is carried out on tensors that have a shape and no values, and what is alive is
counted. Few layers are gone through; what each further layer adds is the same.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from data_registry.core.errors import OgpsaError
from pipelines.memory.live import LiveBytes
from pipelines.memory.shape import Lora, build

_FEW = (2, 3)


@dataclass(frozen=True)
class Pass:
    """A forward and backward pass of one micro-batch.

    Attributes:
        rows: sequences in it; a preference pair is two.
        length: tokens of each.
        held_in_bf16: whether weights are held in bf16.
        casts_to_bf16: whether weights held in fp32 are cast to bf16 as they are used.
        checkpointing: whether activations are computed again in the backward pass.
        attention: the attention implementation, by default the library's choice.
        on_accelerator: whether the loss head works in place, as its kernels do there.
    """

    rows: int
    length: int
    held_in_bf16: bool
    casts_to_bf16: bool
    checkpointing: bool
    attention: str | None = None
    on_accelerator: bool = True


@dataclass(frozen=True)
class Held:
    """Bytes that a pass holds.

    Attributes:
        activations: what is kept for the backward pass once all layers are gone through forwards.
        head: the most that loss head and backward pass hold on top of that.
        rest: what is still kept when nearly all gradients have been computed.
    """

    activations: float = 0.0
    head: float = 0.0
    rest: float = 0.0


@functools.cache
def held_by(
    directory: Path, what: Pass, num_layers: int, *, lora: Lora | None = None, trust_remote_code: bool = False
) -> Held | None:
    """What a pass holds, without weights and without gradients but the one that is being computed.

    Args:
        directory: where the model's configuration lies.
        what: the pass.
        num_layers: the model's number of layers.
        lora: the adapters that are trained; None if all parameters are.
        trust_remote_code: whether code of the model's own may be run.

    Returns:
        What it holds; None where what the model does depends on values, so that it cannot be gone through without any.
    """
    depths = _FEW if num_layers > _FEW[1] else (num_layers,)
    found = None
    for layers in (depths, (num_layers,)):
        with contextlib.suppress(OgpsaError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            found = [_peak(directory, what, each, lora, trust_remote_code) for each in layers]
            break
    if found is None:
        return None
    (kept, peak), (more_kept, more_peak) = found[0], found[-1]
    # Models whose layers differ cannot be cut short, and have been gone through whole.
    further = num_layers - _FEW[0] if len(found) > 1 else 0
    activations = kept + further * (more_kept - kept)
    return Held(activations, min(peak - kept, more_peak - more_kept), kept)


def _peak(directory: Path, what: Pass, layers: int, lora: Lora | None, trust_remote_code: bool) -> tuple[float, float]:
    """What is kept at the end of the trunk's forward pass, and the most that is held."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    dtype = torch.bfloat16 if what.held_in_bf16 else torch.float32
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build(
            directory,
            lora=lora,
            dtype=dtype,
            attention=what.attention,
            layers=layers,
            trust_remote_code=trust_remote_code,
        )
        model.train()
        if what.checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for parameter in model.parameters():
            if parameter.requires_grad:
                # Gradients are a term of their own.
                parameter.register_post_accumulate_grad_hook(_forget_gradient)
        ids = torch.zeros(what.rows, what.length, dtype=torch.long)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        # What only waits to be collected would count.
        gc.collect()
        with LiveBytes([*model.parameters(), *model.buffers(), ids]) as live:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=what.casts_to_bf16):
                states = inner.base_model(input_ids=ids, use_cache=False).last_hidden_state
                gc.collect()
                kept = float(live.live)
                loss = _loss(inner, states, what)
                del states
            loss.backward()
        return kept, float(live.peak)


def _forget_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _loss(model: Any, states: torch.Tensor, what: Pass) -> torch.Tensor:
    """The sum of log-probabilities from the trainers' loss head, with every token counted."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction
    from trl.trainer import utils

    head = model.get_output_embeddings()
    flat = states[:, :-1].reshape(-1, states.shape[-1])
    targets = torch.zeros(len(flat), dtype=torch.long)
    with _in_place() if what.on_accelerator else contextlib.nullcontext():
        found = ChunkedLogProbFunction.apply(
            flat, head.weight, getattr(head, "bias", None), targets, 1.0, utils._CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0,
            ("entropy", "is_top1"),
        )  # fmt: skip
    total: torch.Tensor = found[0].sum()
    return total


@contextlib.contextmanager
def _in_place() -> Iterator[None]:
    """Have the loss head's forward tiles need no memory beside their logits."""
    with mock.patch("trl.kernels.chunked_logprob._forward_tile", return_value=None):
        yield
