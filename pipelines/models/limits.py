"""What a model has room for: which token ids it has embeddings for, and how long a sequence its positions allow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.models.files import ADAPTER_WEIGHTS, CONFIG
from pipelines.models.text_config import max_positions, text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pipelines.models.reference import ModelSource

# RoBERTa and its kin number positions from behind the padding token's id, and their configuration counts those before.
_COUNT_FROM_PADDING: Final = (
    *("camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "roberta", "roberta-prelayernorm"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
)
# What adapters call the embeddings of tokens that they bring along.
_SAVED_EMBEDDINGS: Final = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\b(?!.*lora_)")


@dataclass(frozen=True)
class Limits:
    """What a model has room for.

    Attributes:
        num_embeddings: the number of token ids that it has embeddings for; None where that is not known.
        positions: the greatest length of a sequence in tokens; None where the architecture sets none, or it is not
            known.
    """

    num_embeddings: int | None = None
    positions: int | None = None


def limits_of_model(model: PreTrainedModel) -> Limits:
    """The limits of a loaded model.

    Args:
        model: a model of transformers, or an adapter of PEFT on one.
    """
    embeddings = model.get_input_embeddings()
    number = getattr(embeddings, "num_embeddings", None)
    if not isinstance(number, int):
        number = len(embeddings.weight)
    return Limits(number, _positions(model.config))


def limits_of_source(source: ModelSource, *, trust_remote_code: bool = False) -> Limits:
    """The limits of a model as its configuration states them; no weights are loaded.

    A configuration that cannot be read sets no limit here: loading the model says what is wrong with it.

    Args:
        source: the model or adapter.
        trust_remote_code: run Python code that comes with the model.
    """
    if source.base is None:
        return limits_of_directory(source.directory, trust_remote_code=trust_remote_code)
    base = limits_of_source(source.base, trust_remote_code=trust_remote_code)
    saved = _embeddings_of_adapter(source.directory / ADAPTER_WEIGHTS)
    if base.num_embeddings is None or saved is None:
        return base
    return Limits(max(base.num_embeddings, saved), base.positions)


def limits_of_directory(directory: Path, *, trust_remote_code: bool = False) -> Limits:
    """The limits that the configuration in a directory states; none where it holds no model.

    Args:
        directory: a directory in Hugging Face format.
        trust_remote_code: run Python code that comes with the model.
    """
    if not (directory / CONFIG).is_file():
        return Limits()
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(directory), trust_remote_code=trust_remote_code)
    except Exception:  # noqa: BLE001 - whoever loads the model says what is wrong with its configuration
        return Limits()
    vocabulary = getattr(text_config(config), "vocab_size", None)
    known = isinstance(vocabulary, int) and not isinstance(vocabulary, bool) and vocabulary > 0
    return Limits(vocabulary if known else None, _positions(config))


def _positions(config: Any) -> int | None:
    positions = max_positions(config)
    if positions is None:
        return None
    text = text_config(config)
    if getattr(text, "model_type", None) in _COUNT_FROM_PADDING:
        padding = getattr(text, "pad_token_id", None)
        return positions - 1 - (padding if isinstance(padding, int) else 1)
    return max([positions, *_stretched(text, positions)])


def _stretched(config: Any, positions: int) -> Iterator[int]:
    """The lengths that stretched rotary positions reach, in tokens."""
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(scaling, Mapping):
        return
    # One for the whole model, or one for every type of layers.
    for entry in (scaling, *(part for part in scaling.values() if isinstance(part, Mapping))):
        kind, factor = entry.get("rope_type", entry.get("type")), entry.get("factor")
        if kind in ("linear", "dynamic", "yarn") and isinstance(factor, int | float) and factor > 1:
            original = entry.get("original_max_position_embeddings")
            yield int((original if isinstance(original, int) else positions) * factor)


def _embeddings_of_adapter(file: Path) -> int | None:
    """The number of token ids that an adapter brings embeddings for; None where it brings none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as weights:
            names = [name for name in weights.keys() if _SAVED_EMBEDDINGS.search(name)]  # noqa: SIM118 - not a mapping
            return max((int(weights.get_slice(name).get_shape()[0]) for name in names), default=None)
    except (SafetensorError, OSError):
        return None
