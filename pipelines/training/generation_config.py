"""The model's generation options, kept as they are where transformers would not save them.

Many models bring a ``generation_config.json`` with a temperature, but without ``do_sample``. transformers loads it, and
refuses to save it once anything in it was changed, which its trainer does where the tokenizer's special tokens differ.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from transformers import GenerationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

FILE: Final = "generation_config.json"
_TOKENS: Final = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


class KeptGenerationConfig:
    """Generation options that are written as the model has them, with the special tokens of the trained model.

    Args:
        own: the options as the model was loaded with them.
    """

    def __init__(self, own: GenerationConfig) -> None:
        self._own = own

    def write(self, directory: Path, saved: GenerationConfig) -> None:
        """Replace the file that the trainer has saved; where it has saved none, as for adapters, there is none.

        Args:
            directory: the directory of the saved model.
            saved: the options that the trainer has saved, whose special tokens count.
        """
        if not (directory / FILE).is_file():
            return
        merged = copy.deepcopy(self._own)
        for name in _TOKENS:
            setattr(merged, name, getattr(saved, name))
        merged.to_json_file(directory / FILE, use_diff=True, keys_to_pop=["compile_config"])


def settle_generation_config(model: PreTrainedModel) -> KeptGenerationConfig | None:
    """Give a model whose generation options transformers would refuse to save plain ones, and return its own.

    Args:
        model: the bare model; its ``generation_config`` is replaced where that is needed.

    Returns:
        The options to write in the end; None where transformers saves the model's own.
    """
    own: Any = getattr(model, "generation_config", None)
    if own is None:
        return None
    try:
        copy.deepcopy(own).validate(strict=True)
    except ValueError as error:
        reason = next((line.strip("- ") for line in str(error).splitlines() if line.startswith("- ")), str(error))
        logger.warning(
            "transformers would not save the generation_config.json of the model (%s); the run keeps it as it is",
            " ".join(reason.split()),
        )
        tokens = {name: getattr(own, name) for name in _TOKENS if getattr(own, name) is not None}
        model.generation_config = GenerationConfig(**tokens)
        return KeptGenerationConfig(own)
    return None
