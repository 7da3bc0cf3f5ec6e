"""``dpo``: the preference loss, with the model that the basis is built for as the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from pipelines.basis.objectives.reference_loss import TOKEN_IDS, ReferenceLoss, Sample
from pipelines.tokens.fitting import Bounds, encode_fitting_pairs
from pipelines.tokens.padding import collate_pairs
from pipelines.tokens.pairs import SIDES

if TYPE_CHECKING:
    import datasets
    from torch import Tensor

    from pipelines.passes.engine import ReferenceEngine
    from pipelines.passes.gradients import Batch, LossSum


class PreferenceLoss(ReferenceLoss):
    """DPO's loss of pairs that hold the log-probabilities which the reference gives to both completions."""

    name: ClassVar[str] = "dpo"
    title: ClassVar[str] = "preference"
    task: ClassVar[str] = "preference"
    columns: ClassVar = {
        **dict.fromkeys(("prompt_ids", *(f"{side}_ids" for side in SIDES)), TOKEN_IDS),
        **dict.fromkeys((f"ref_{side}_logps" for side in SIDES), pa.float64()),
    }
    needs_start_values: ClassVar[bool] = True
    takes_beta: ClassVar[bool] = True

    def encode(self, rows: datasets.Dataset, tokenizer: Any, bounds: Bounds, *, name: str) -> list[Sample]:
        """See ``ReferenceLoss``."""
        return encode_fitting_pairs(rows, tokenizer, bounds, name=name)

    def with_start_values(
        self, samples: list[Sample], engine: ReferenceEngine, *, batch_size: int, pad_token_id: int
    ) -> list[Sample]:
        """The pairs with the log-probabilities that this very model gives them."""
        from pipelines.passes.log_probs import completion_values

        device = engine.access.device()
        values = completion_values(engine.forward, engine.access.module, samples, batch_size, pad_token_id, device)
        return [
            {**pair, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
            for pair, (chosen, rejected) in zip(samples, values, strict=True)
        ]

    def length(self, sample: Sample) -> int:
        """The length of the prompt with the longer completion."""
        return len(sample["prompt_ids"]) + max(len(sample[f"{side}_ids"]) for side in SIDES)

    def num_tokens(self, sample: Sample) -> int:
        """The number of tokens of both completions."""
        return sum(len(sample[f"{side}_ids"]) for side in SIDES)

    def num_units(self, sample: Sample) -> int:
        """The number of pairs in a sample, which is 1."""
        return 1

    def collate(self, samples: Sequence[Sample], pad_token_id: int) -> Batch:
        """See ``collate_pairs``."""
        return collate_pairs(samples, pad_token_id)

    def loss_sum(self, beta: float | None) -> LossSum:
        """See ``ReferenceLoss``."""
        assert beta is not None
        return preference_loss_sum(beta)


def preference_loss_sum(beta: float) -> LossSum:
    """The DPO loss summed over a batch's pairs; the batch holds their reference log-probabilities.

    Source:
        arXiv 2305.18290, equation 7.
    """
    from torch.nn import functional

    from pipelines.passes.log_probs import completion_log_probs

    def loss_sum(model: Any, batch: Batch) -> Tensor:
        chosen, rejected = completion_log_probs(model, batch)
        margin = (chosen - batch["ref_chosen_logps"]) - (rejected - batch["ref_rejected_logps"])
        return -functional.logsigmoid(beta * margin).sum()

    return loss_sum
