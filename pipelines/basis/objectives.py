"""Reference objectives: the loss whose gradient makes a row, and the tokenised samples that it is taken over."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from trl.trainer.utils import add_fused_lm_head

from pipelines.basis.log_probs import completion_log_probs
from pipelines.basis.passes import Batch, LossSum


def add_loss_head(model: nn.Module) -> None:
    """Let ``model(..., labels=..., fused_lm_head=True)`` give per-token log-probabilities without whole logits.

    TRL's trainers do the same to their models, so that reference and training passes use one head.
    """
    add_fused_lm_head(model)


def token_loss_sum(model: Any, batch: Batch) -> Tensor:
    """Sum of the token loss over a batch's answers, a float32 scalar."""
    outputs = model(**batch, use_cache=False, fused_lm_head=True)
    return -outputs.log_probs.float().sum()


def preference_loss_sum(beta: float) -> LossSum:
    """The DPO loss summed over a batch's pairs, reference log-probabilities being in the batch.

    Source:
        arXiv 2305.18290, equation 7.
    """

    def loss_sum(model: Any, batch: Batch) -> Tensor:
        chosen, rejected = completion_log_probs(model, batch)
        margin = (chosen - batch["ref_chosen_logps"]) - (rejected - batch["ref_rejected_logps"])
        return -functional.logsigmoid(beta * margin).sum()

    return loss_sum


def loss_of(kind: str, beta: float | None) -> LossSum:
    """The loss of a kind of objective.

    Args:
        kind: ``"sft"``, ``"sft-pairs"`` or ``"dpo"``.
        beta: for ``"dpo"``.
    """
    if kind != "dpo":
        return token_loss_sum
    assert beta is not None
    return preference_loss_sum(beta)
