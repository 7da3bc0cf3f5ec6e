"""What forward and backward pass hold at once: the passes are gone through without memory behind any tensor.

Every operation of model and loss head is carried out on tensors that have a shape and no values, and what is alive is
counted. Few layers are gone through; what each further layer adds is the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from pipelines.memory.live import LiveBytes
from pipelines.memory.shape import build

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
        activations: at most, in the trunk alone: activations, and what its backward pass makes meanwhile.
        head: what the loss head holds on top of the trunk's activations.
        rest: the largest part of the above that is still held when most gradients have been computed.
    """

    activations: float
    head: float
    rest: float


def held_by(
    directory: Path, what: Pass, num_layers: int, *, lora: Mapping[str, Any] | None, trust_remote_code: bool = False
) -> Held:
    """What a pass holds, without weights and without gradients but the one that is being computed.

    Args:
        directory: where the model's configuration lies.
        what: the pass.
        num_layers: the model's number of layers.
        lora: the settings of the adapters that are trained; None if all parameters are.
        trust_remote_code: whether code of the model's own may be run.
    """
    if num_layers <= _FEW[1]:
        trunk, whole = _peaks(directory, what, num_layers, lora, trust_remote_code)
        return Held(trunk, max(0.0, whole - trunk), whole)
    (trunk, whole), (more_trunk, more_whole) = (
        _peaks(directory, what, layers, lora, trust_remote_code) for layers in _FEW
    )
    further = num_layers - _FEW[0]
    activations = trunk + further * (more_trunk - trunk)
    return Held(activations, max(0.0, whole + further * (more_whole - whole) - activations), trunk)


def _peaks(
    directory: Path, what: Pass, layers: int, lora: Mapping[str, Any] | None, trust_remote_code: bool
) -> tuple[float, float]:
    """The most that is held with a loss that needs no head, and with the trainer's."""
    return tuple(  # type: ignore[return-value]
        _peak(directory, what, layers, lora, trust_remote_code, with_head=with_head) for with_head in (False, True)
    )


def _peak(
    directory: Path, what: Pass, layers: int, lora: Mapping[str, Any] | None, trust_remote_code: bool, *, with_head: bool
) -> float:
    from torch._subclasses.fake_tensor import FakeTensorMode

    dtype = torch.bfloat16 if what.held_in_bf16 else torch.float32
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build(
            directory, lora=lora, dtype=dtype, attention=what.attention, layers=layers, trust_remote_code=trust_remote_code
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
        with LiveBytes([*model.parameters(), *model.buffers(), ids]) as live:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=what.casts_to_bf16):
                states = inner.base_model(input_ids=ids, use_cache=False).last_hidden_state
                loss = _loss(inner, states, what) if with_head else states.sum()
                del states
            loss.backward()
        return float(live.peak)


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
    with mock.patch("trl.kernels.chunked_logprob._forward_tile", lambda *args, **kwargs: None):
        yield
