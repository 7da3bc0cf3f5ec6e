"""The weighted loss of SFT: ``1/N sum of w_t (-l_t)`` over the tokens of an optimizer step.

N is the number of tokens with w other than 0, or the sum of w, over all ranks and accumulated batches. The loss is
TRL's own on log-probabilities that are multiplied by w: where all weights are 1 it has the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from trl import pack_dataset

from pipelines.core.job import world_size
from pipelines.tokens.labels import IGNORED
from pipelines.training.data.weighting import TOKEN_WEIGHTS, counted_labels, kept_in_float32


class WeightedRows:
    """The mixin, to be put between :class:`TransformMixin` and TRL's SFT trainer. Batches without weights are TRL's.

    Attributes:
        normalise: what the weighted losses of a step are divided by: the number of tokens that weigh something, or the
            sum of the weights.
    """

    normalise: Literal["count", "weight"] = "count"
    # What the weights of the present step are multiplied by.
    _scale: Tensor | float = 1.0

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        self._signature_columns = [*dict.fromkeys([*self._signature_columns, TOKEN_WEIGHTS])]  # type: ignore[has-type]

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, packing: bool, *arguments: Any, **options: Any
    ) -> Any:
        """TRL's preparation; it packs tokens and labels alone, so rows with weights are packed here, in its way."""
        if packing and TOKEN_WEIGHTS in dataset.column_names:
            dataset = dataset.shuffle(seed=args.seed) if args.shuffle_dataset else dataset
            columns = dataset.select_columns(["input_ids", "labels", TOKEN_WEIGHTS])
            dataset = pack_dataset(columns, args.max_length, args.packing_strategy, {"desc": "packing"})
            packing = False
        return super()._prepare_dataset(dataset, processing_class, args, packing, *arguments, **options)  # type: ignore[misc]

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)  # type: ignore[misc]
        return kept_in_float32(prepared, inputs, self.args.device)  # type: ignore[attr-defined]

    def _get_num_items_in_batch(self, batch_samples: Sequence[Any], device: torch.device) -> Any:
        """TRL's count of the step's tokens over all ranks, of those that weigh something; it is what is divided by."""
        weighted = [batch for batch in batch_samples if TOKEN_WEIGHTS in batch]
        if not weighted:
            return super()._get_num_items_in_batch(batch_samples, device)  # type: ignore[misc]
        counted = [{**batch, "labels": counted_labels(batch)} for batch in weighted]
        number = super()._get_num_items_in_batch(counted, device)  # type: ignore[misc]
        if self.normalise == "weight":
            total = torch.stack([_sum_of_weights(batch) for batch in counted]).sum().to(device)
            if world_size() > 1:
                dist.all_reduce(total)
            # The loss is divided by the number; a sum below 1 could not be given instead, which TRL would take for 1.
            self._scale = torch.where(total > 0, number / total, 1.0)
        return number

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss of weighted log-probabilities."""
        if TOKEN_WEIGHTS not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        labels, weights = counted_labels(inputs), inputs[TOKEN_WEIGHTS][:, 1:]
        if self.normalise == "weight":
            weights = (weights.double() * self._scale).float()

        def weighted(**given: Any) -> Any:
            outputs = model(**given)
            outputs.log_probs = outputs.log_probs * weights
            return outputs

        plain = {**{key: value for key, value in inputs.items() if key != TOKEN_WEIGHTS}, "labels": labels}
        return super().compute_loss(weighted, plain, return_outputs, num_items_in_batch)  # type: ignore[misc]


def _sum_of_weights(batch: Mapping[str, Tensor]) -> Tensor:
    """The sum of the weights of a batch's labelled tokens, float64."""
    inside = batch["labels"][:, 1:] != IGNORED
    return (batch[TOKEN_WEIGHTS].to(inside.device)[:, 1:].double() * inside).sum()
