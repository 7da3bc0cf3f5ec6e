"""The weighted loss of DPO: ``f(beta (sum of w r over the chosen answer - sum of w r over the rejected one))``.

r is a token's log-probability under the model minus that under the starting model. The loss is TRL's own on
log-probabilities and reference values that are multiplied by w: where all weights are 1 it has the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipelines.configs.weighting import RejectedTokens
from pipelines.tokens.labels import IGNORED
from pipelines.tokens.pairs import SIDES, Pair
from pipelines.training.data.weighting import IN_FLOAT32, REFERENCE, SIDE_WEIGHTS, TOKEN_WEIGHTS, kept_in_float32
from pipelines.training.token_filter import least_likely_tokens

_REFERENCE_SUM = "ref_rejected_logps"


class WeightedPairs:
    """The mixin, to be put between :class:`TransformMixin` and TRL's DPO trainer. Batches without weights are TRL's.

    Attributes:
        rejected_tokens: which tokens of rejected answers count, in batches with reference values of single tokens.
    """

    rejected_tokens: RejectedTokens | None = None

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        ours = [*SIDE_WEIGHTS.values(), REFERENCE]
        self._signature_columns = [*dict.fromkeys([*self._signature_columns, *ours])]  # type: ignore[has-type]

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)  # type: ignore[misc]
        return kept_in_float32(prepared, inputs, self.args.device)  # type: ignore[attr-defined]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss of weighted log-ratios."""
        static, reference = inputs.get(TOKEN_WEIGHTS), inputs.get(REFERENCE)
        if static is None and reference is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        given = {key: value for key, value in inputs.items() if key not in IN_FLOAT32}
        whole: list[Tensor] = []

        def weighted(**arguments: Any) -> Any:
            outputs = model(**arguments)
            log_probs, inside = outputs.log_probs, arguments["labels"][:, 1:] != IGNORED
            whole.append(log_probs.detach().sum(1))
            weights = inside.float() if static is None else static[:, 1:]
            if reference is not None:
                kept = self._kept(log_probs.detach(), reference[:, 1:], inside.chunk(2)[1])
                weights = torch.cat([weights.chunk(2)[0], weights.chunk(2)[1] * kept])
                # TRL reads the reference values after it has called the model.
                given[_REFERENCE_SUM] = _reference_sum(given[_REFERENCE_SUM], weights, reference[:, 1:], kept, inside)
            outputs.log_probs = log_probs * weights
            return outputs

        loss = super().compute_loss(weighted, given, return_outputs, num_items_in_batch)  # type: ignore[misc]
        self._log_whole(whole[0])
        return loss

    def _kept(self, log_probs: Tensor, reference: Tensor, inside: Tensor) -> Tensor:
        """Which tokens of the rejected answers count, ``[B, L - 1]`` bool; their share is logged."""
        assert self.rejected_tokens is not None, "rows have reference values of tokens for nothing else"
        if self._is_at_start():
            kept = inside
        else:
            ratios = log_probs.chunk(2)[1].float() - reference
            how = self.rejected_tokens
            kept = least_likely_tokens(ratios, inside, how.share, padded_width=how.padded)
        gather = self.accelerator.gather_for_metrics  # type: ignore[attr-defined]
        share = gather(kept.sum()).sum() / gather(inside.sum()).sum().clamp(min=1)
        self._metrics["train"]["rejected_tokens/kept"].append(share.item())  # type: ignore[attr-defined]
        return kept

    def _is_at_start(self) -> bool:
        """Whether the weights are still those of the starting model: all ratios are 0 then, and all tokens tie.

        What is computed differs from 0 by rounding, since the reference values are from other batches.
        """
        step: int = self.state.global_step  # type: ignore[attr-defined]
        scheduler: Any = self.lr_scheduler  # type: ignore[attr-defined]
        rates = getattr(getattr(scheduler, "scheduler", scheduler), "lr_lambdas", None)
        # A warm-up begins with a step of rate 0.
        return step == 0 or (step == 1 and rates is not None and all(rate(0) == 0 for rate in rates))

    def _log_whole(self, sums: Tensor) -> None:
        """Log the log-probabilities of whole answers, as without weights."""
        mode = "train" if self.model.training else "eval"  # type: ignore[attr-defined]
        for side, values in zip(SIDES, sums.chunk(2), strict=True):
            mean = self.accelerator.gather(values).mean().item()  # type: ignore[attr-defined]
            self._metrics[mode][f"logps/{side}"][-1] = mean  # type: ignore[attr-defined]


def _reference_sum(before: Tensor, weights: Tensor, reference: Tensor, kept: Tensor, inside: Tensor) -> Tensor:
    """The weighted sums of reference values of rejected answers, ``[B]``; those of answers kept whole stay as given."""
    whole = (kept | ~inside.chunk(2)[1]).all(1)
    sums = (weights.chunk(2)[1].double() * reference).sum(1)
    return torch.where(whole, before, sums.to(before.dtype))


def with_weighted_references(pairs: list[Pair], *, filtered: bool) -> list[Pair]:
    """Pairs whose reference values are weighted sums; those of single tokens are left where they are still needed.

    Args:
        pairs: pairs with reference log-probabilities of answers and of single tokens, and with weights or without.
        filtered: whether those of the rejected answers' tokens are needed for a filter.
    """
    result = []
    for pair in pairs:
        kept = {key: value for key, value in pair.items() if not key.endswith("_token_logps")}
        for side in SIDES:
            weights = pair.get(SIDE_WEIGHTS[side])
            # Where nothing is weighted the stored sum has the very bits that there are without weights.
            if weights is not None and any(weight != 1 for weight in weights):
                tokens = pair[f"ref_{side}_token_logps"]
                kept[f"ref_{side}_logps"] = sum(weight * value for weight, value in zip(weights, tokens, strict=True))
        if filtered:
            kept[REFERENCE] = pair[REFERENCE]
        result.append(kept)
    return result
