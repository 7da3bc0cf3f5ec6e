"""``sft``: the mean token loss on the answers of conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.basis.objectives.reference_loss import TOKEN_IDS, ReferenceLoss, Sample
from pipelines.tokens.fitting import Bounds, encode_fitting
from pipelines.tokens.labels import num_trained

if TYPE_CHECKING:
    import datasets
    from torch import Tensor

    from pipelines.passes.gradients import Batch, LossSum


class TokenLoss(ReferenceLoss):
    """The negative log-likelihood of the labelled tokens of samples with ``input_ids`` and ``labels``."""

    name: ClassVar[str] = "sft"
    title: ClassVar[str] = "token"
    task: ClassVar[str] = "sft"
    columns: ClassVar = {"input_ids": TOKEN_IDS, "labels": TOKEN_IDS}

    def encode(self, rows: datasets.Dataset, tokenizer: Any, bounds: Bounds, *, name: str) -> list[Sample]:
        """See ``ReferenceLoss``."""
        samples: list[Sample] = encode_fitting(rows, tokenizer, bounds, name=name).to_list()
        return samples

    def length(self, sample: Sample) -> int:
        """The length of the whole sample."""
        return len(sample["input_ids"])

    def num_tokens(self, sample: Sample) -> int:
        """The number of labelled tokens that have a token before them."""
        return num_trained(sample["labels"])

    def num_units(self, sample: Sample) -> int:
        """The number of trained tokens."""
        return self.num_tokens(sample)

    def collate(self, samples: Sequence[Sample], pad_token_id: int) -> Batch:
        """A batch padded as TRL's SFT trainer pads it."""
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        return dict(DataCollatorForLanguageModeling(pad_token_id=pad_token_id)(list(samples)))

    def loss_sum(self, beta: float | None) -> LossSum:
        """See ``ReferenceLoss``."""
        return token_loss_sum


def token_loss_sum(model: Any, batch: Batch) -> Tensor:
    """Sum of the token loss over a batch's answers, a float32 scalar."""
    from pipelines.passes import log_probs

    return log_probs.token_loss_sum(model, batch)
