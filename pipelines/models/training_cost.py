"""The floating-point operations that a training step must do, from a model's layers: the usual count behind MFU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.models.text_config import text_config

if TYPE_CHECKING:
    from torch import nn

_LAYER = re.compile(r"\.(\d+)(?:\.|$)")
_BEFORE, _AFTER = -1.0, float("inf")


@dataclass(frozen=True)
class TrainingCost:
    """What forward and backward pass cost, in floating-point operations.

    Attributes:
        per_token: for each token.
        per_pair: for each pair of tokens of a sequence: n² of them for n tokens.
    """

    per_token: float
    per_pair: float

    def of(self, num_tokens: float, num_pairs: float) -> float:
        """The operations for so many tokens, and pairs of tokens that share a sequence."""
        return self.per_token * num_tokens + self.per_pair * num_pairs


def training_cost(model: nn.Module) -> TrainingCost:
    """The cost of training a model as it is: which of its weights are frozen, and what adapters it has.

    A weight matrix of n numbers costs 2n for each token in the forward pass, 2n for the gradient with respect to its
    input, and 2n for its own: 6n if it is trained. Frozen weights have no gradients of their own, and none with respect
    to inputs below the first layer that trains anything. Attention costs 12 a for each pair of tokens in a layer of a
    numbers in all heads together, a third of it forward; the mask that hides later tokens is not counted off.
    Embeddings are looked up, and what gradient checkpointing computes again is not counted. Of experts, as many count
    as see a token.

    Source:
        arXiv 2204.02311, appendix B; ours differs in counting frozen weights and adapters for what they are.
    """
    config = text_config(model.config)
    trained = [_place(name) for name, parameter in model.named_parameters() if parameter.requires_grad]
    first = min(trained, default=_AFTER)
    per_token = 0.0
    for name, numel, is_trained in _matrices(model, _expert_share(config)):
        passed_on = _place(name) >= first
        per_token += numel * (2 + 2 * passed_on + 2 * is_trained)
    layers = _attention_layers(config)
    per_pair = sum(_attention_width(config) * (12 if layer >= first else 4) for layer in layers)
    return TrainingCost(per_token, per_pair)


def _matrices(model: nn.Module, expert_share: float) -> Iterator[tuple[str, float, bool]]:
    """Name, size and whether it is trained, of each weight that tokens are multiplied with."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            # Of weights that are split over ranks or packed in four bits, the tensor at hand has another shape.
            sizes: Any = (
                (module.nx, module.nf) if isinstance(module, Conv1D) else (module.in_features, module.out_features)
            )
            numel = int(sizes[0]) * int(sizes[1])
            share = expert_share if ".experts." in f"{name}." else 1.0
            yield name, numel * share, bool(module.weight.requires_grad)
            continue
        for own, parameter in module.named_parameters(recurse=False):
            shape = getattr(parameter, "ds_shape", parameter.shape)
            if len(shape) == 3:
                # The experts of a layer in one tensor.
                yield f"{name}.{own}", shape.numel() * expert_share, parameter.requires_grad


def _place(name: str) -> float:
    """Where a weight stands: in which layer, or before or after all of them."""
    found = _LAYER.search(name)
    if found is not None:
        return float(found[1])
    return _BEFORE if "embed" in name or ".wte" in name or ".wpe" in name else _AFTER


def _expert_share(config: Any) -> float:
    """The share of a layer's experts that a token sees."""
    experts = next(
        (n for key in ("num_local_experts", "num_experts", "n_routed_experts") if (n := _at(config, key))), 0
    )
    return (_at(config, "num_experts_per_tok") or experts) / experts if experts else 1.0


def _attention_layers(config: Any) -> list[int]:
    """The numbers of the layers that compare all pairs of tokens."""
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return [index for index, kind in enumerate(kinds) if "attention" in kind and "linear" not in kind]
    has_attention = _at(config, "num_attention_heads") > 0
    return list(range(_at(config, "num_hidden_layers"))) if has_attention else []


def _attention_width(config: Any) -> float:
    """The numbers of a token's query, and of its value, in all heads of a layer: their mean where they differ."""
    heads = _at(config, "num_attention_heads")
    if value := _at(config, "v_head_dim"):
        key = _at(config, "qk_head_dim") or _at(config, "qk_nope_head_dim") + _at(config, "qk_rope_head_dim")
        return heads * (key + value) / 2
    return float(heads * (_at(config, "head_dim") or _at(config, "hidden_size") // max(1, heads)))


def _at(config: Any, name: str) -> int:
    found = getattr(config, name, None)
    return found if isinstance(found, int) else 0
