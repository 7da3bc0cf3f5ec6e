"""``sft-pairs``: the token loss over both completions of preference pairs, as the original code's DPO stage has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.basis.objectives.reference_loss import Sample
from pipelines.basis.objectives.tokens import TokenLoss
from pipelines.tokens.fitting import Bounds, encode_fitting_pairs
from pipelines.tokens.pairs import SIDES, as_token_rows

if TYPE_CHECKING:
    import datasets


class TokenPairsLoss(TokenLoss):
    """The token loss; a pair becomes two samples, the chosen completion first."""

    name: ClassVar[str] = "sft-pairs"
    task: ClassVar[str] = "preference"
    samples_per_row: ClassVar[int] = len(SIDES)

    def encode(self, rows: datasets.Dataset, tokenizer: Any, bounds: Bounds, *, name: str) -> list[Sample]:
        """See ``ReferenceLoss``."""
        return as_token_rows(encode_fitting_pairs(rows, tokenizer, bounds, name=name))
