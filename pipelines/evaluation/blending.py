"""Two models of one architecture in memory, and every mix of them made in one third model's place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data_registry.core.errors import InputError
from pipelines.models.loading import load_model
from pipelines.models.reference import ModelSource, model_directory
from pipelines.models.summary import summarize_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_ROUNDED = {"BF16": "bfloat16", "F16": "float16"}


class Blending:
    """A model whose weights become those of any mix.

    Mixes are those of ``ogpsa merge --method linear``: interpolated in float32, and rounded as the fine-tuned weights
    are stored.

    Args:
        finetuned: the fine-tuned model; an adapter is merged into its base.
        other: the model at the other end.
        precision: the arithmetic of the mixes, ``"fp32"`` or ``"bf16"``.
        device: where the mixes are.
        trust_remote_code: whether to run Python code that comes with the models.

    Attributes:
        model: the model that holds the mix, in evaluation mode.

    Raises:
        InputError: a model cannot be loaded, or the two have other weights.
    """

    def __init__(
        self,
        finetuned: ModelSource,
        other: ModelSource,
        *,
        precision: str,
        device: torch.device,
        trust_remote_code: bool,
    ) -> None:

        self._ends: list[dict[str, torch.Tensor]] = []
        for source in (finetuned, other):
            loaded = load_model(source, precision="fp32", trust_remote_code=trust_remote_code)
            self._ends.append({name: weight.detach() for name, weight in loaded.named_parameters()})
        _check_alike(finetuned, other, *self._ends)
        self._stored = _stored_dtype(finetuned)
        self.model: PreTrainedModel = load_model(finetuned, precision=precision, trust_remote_code=trust_remote_code)
        self.model.to(device)

    def mix(self, share: float) -> PreTrainedModel:
        """The model with the weights ``share * finetuned + (1 - share) * other``; both ends are exact."""
        import torch

        finetuned, other = self._ends
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                mixed = torch.lerp(finetuned[name], other[name], 1 - share)
                weight.copy_(mixed if self._stored is None else mixed.to(self._stored))
        return self.model


def _check_alike(
    finetuned: ModelSource, other: ModelSource, ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]
) -> None:
    shapes = [{name: tuple(weight.shape) for name, weight in end.items()} for end in (ours, theirs)]
    differing = [name for name in {**ours, **theirs} if shapes[0].get(name) != shapes[1].get(name)]
    if differing:
        name = differing[0]
        raise InputError(
            f"{len(differing)} weights are not alike in '{finetuned.reference}' and '{other.reference}'",
            where=f"{name} is {shapes[0].get(name, 'absent')} and {shapes[1].get(name, 'absent')}",
            fix="give the model that fine-tuning started from",
        )


def _stored_dtype(source: ModelSource) -> torch.dtype | None:
    """The number format that merged weights are rounded to; None for float32, and for adapters, which stay factors."""
    import torch

    if source.is_adapter:
        return None
    dtypes = summarize_model(Path(model_directory(source))).dtypes
    most = max(dtypes, key=lambda name: dtypes[name], default="F32")
    return getattr(torch, _ROUNDED[most]) if most in _ROUNDED else None
