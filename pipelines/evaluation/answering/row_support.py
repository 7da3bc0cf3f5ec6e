"""Whether a model's rows can come and go one by one: looked up in its caches, and tried out."""

from __future__ import annotations

import inspect
import logging
import weakref
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from pipelines.evaluation.answering.continuing import Continuation
from pipelines.evaluation.answering.requests import Request
from pipelines.evaluation.answering.shared_starts import Group

logger = logging.getLogger(__name__)

_NEEDED: Final = ("position_ids", "past_key_values", "logits_to_keep")
_PROMPTS: Final = ((1, 2, 3, 1, 2), (1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3))
_SHARED: Final = 2
_NUM_TOKENS: Final = 3
_TOLERANCES: Final = {torch.float32: 1e-3, torch.float64: 1e-3}
_OTHER_TOLERANCE: Final = 0.05
"""Of the spread of logits: above the rounding of a type, here that of bf16, and below what a wrong position makes."""
_known: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def takes_rows(model: Any) -> bool:
    """Whether :class:`Continuation` gives a model's rows the logits that the model gives each prompt alone.

    Its layers must all keep keys and values of all tokens: no sliding windows, no recurrent states. Its rotary
    frequencies must not depend on the longest row of a pass (dynamic scaling, LongRoPE). Beyond that it is
    tried: three short prompts with a common start are continued by a few tokens, and their logits compared with those
    of plain passes. So models with code of their own, or whose positions are of another kind, are found out whatever
    they are called.

    Args:
        model: a model of transformers, in evaluation mode; not one whose weights are spread over processes.
    """
    if model not in _known:
        _known[model] = _has_plain_layers(model) and _agrees(model)
        if not _known[model]:
            logger.info("%s is answered in closed batches: its cache is of another kind", type(model).__name__)
    return _known[model]


def _has_plain_layers(model: Any) -> bool:
    taken = inspect.signature(model.forward).parameters
    if any(name not in taken for name in _NEEDED) or model.config.is_encoder_decoder or model._is_stateful:
        return False
    if _turns_with_length(model.config):
        return False
    try:
        layers = DynamicCache(config=model.config).layers
    except (AttributeError, KeyError, TypeError, ValueError):
        # A configuration of a kind that transformers has no cache for.
        return False
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def _turns_with_length(config: Any) -> bool:
    """Whether rotary frequencies depend on the longest row of a pass, so that rows would change each other's."""
    text = config.get_text_config(decoder=True)
    # Parameters are those of all layers, or a mapping of them for each kind of layer; code of its own has older names.
    given = [getattr(text, name, None) or {} for name in ("rope_parameters", "rope_scaling")]
    kinds = [part for each in given for part in (each, *each.values()) if isinstance(part, dict)]
    named = {str(part.get(name)) for part in kinds for name in ("rope_type", "type")}
    return any("dynamic" in kind or kind == "longrope" for kind in named)


def _agrees(model: Any) -> bool:
    words = model.get_input_embeddings().num_embeddings
    requests = [
        Request([token % words for token in ids], _NUM_TOKENS, number=number) for number, ids in enumerate(_PROMPTS)
    ]
    try:
        with torch.no_grad():
            tolerance = _TOLERANCES.get(_computed_in(model), _OTHER_TOLERANCE)
            return all(bool(difference <= tolerance) for difference in _differences(model, requests))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        logger.debug("rows of %s cannot be continued one by one: %s", type(model).__name__, error)
        return False


def _computed_in(model: Any) -> torch.dtype:
    device = model.device.type
    found: torch.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
    return found


def _differences(model: Any, requests: list[Request]) -> list[Tensor]:
    """The largest difference of logits at each step of each prompt, as a share of how far its logits spread."""
    seen: list[Tensor] = []

    def choose(logits_RV: Tensor, draws: Any) -> Tensor:
        seen.append(logits_RV)
        return logits_RV.argmax(-1)

    order = [1, 0, 2]
    continuation = Continuation(
        model, requests, batch_size=len(requests), ends=(), choose=choose, mode=torch.no_grad,
        groups=[Group(_SHARED, order)],
    )  # fmt: skip
    made = {request.number: tokens for request, tokens in continuation.run()}
    found = []
    for slot, number in enumerate(order):
        ids = [*requests[number].ids, *made[number]]
        plain_LV = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()
        for step, logits_RV in enumerate(seen):
            plain_V = plain_LV[len(requests[number].ids) - 1 + step]
            found.append((logits_RV[slot] - plain_V).abs().max() / plain_V.std().clamp(min=1e-6))
    return found
