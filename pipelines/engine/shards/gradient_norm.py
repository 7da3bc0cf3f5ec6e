"""The norm of the gradient at DeepSpeed's stage 0 in fp32, which alone of all stages does not keep it for the log."""

from __future__ import annotations

from typing import Any

import torch


def keep_gradient_norm(engine: Any) -> None:
    """Let an engine that computes no norm of its gradient know it: before clipping, and after any projection.

    Args:
        engine: the DeepSpeed engine, between its backward pass and its optimizer's step.
    """
    if hasattr(engine.optimizer, "_global_grad_norm"):
        return
    gradients = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
    engine._global_grad_norm = float(torch.nn.utils.get_total_norm(gradients))
