"""An adapter put onto its base model: every tensor of it in its place, or a refusal that says what is wrong."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import InputError
from pipelines.models.adapter_config import read_adapter_config, tell_unknown_settings
from pipelines.models.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_weight_files
from pipelines.models.foreign import foreign_files
from pipelines.models.text_config import text_config

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_DUPLICATES = (".modules_to_save.weight", ".original_module.weight", ".token_adapter.trainable_tokens_delta")
"""What PEFT writes twice and reads once, where embeddings are trained as modules or tokens and saved whole too."""


def put_on(base: PreTrainedModel, directory: Path, *, trainable: bool) -> Any:
    """Put an adapter onto its base model.

    Tensors beside the factors (saved embeddings, whole modules, trained rows) take the place of those of the base, as
    PEFT has them.

    Args:
        base: the base model, which is changed.
        directory: the adapter, its weights in safetensors.
        trainable: leave the adapter unmerged and trainable; otherwise it is merged into the base.

    Returns:
        A ``peft.PeftModel`` if ``trainable``, else the base model with the adapter folded in, in evaluation mode.

    Raises:
        InputError: files are missing or damaged, the adapter does not fit the model, or its type cannot be folded in.
    """
    config = read_adapter_config(directory)
    check_weight_files(directory)
    stored = _read(directory)
    _check_embeddings(base, stored, directory)
    where = f"base_model_name_or_path in {directory / ADAPTER_CONFIG}"
    with foreign_files(f"the adapter '{directory}' does not fit its base model", where=where):
        adapted, unused = _load(base, directory, stored, trainable=trainable)
    _check_biases(adapted, directory)
    tell_unknown_settings(config, adapted.peft_config["default"].to_dict(), directory)
    needed = _needed(adapted)
    differing = sorted({*(name for name in unused if not name.endswith(_DUPLICATES)), *(needed - set(stored))})
    if differing:
        raise InputError(
            f"the adapter '{directory}' does not fit its base model: {len(differing)} weights are on one side only",
            where=", ".join(differing[:3]) + (" ..." if len(differing) > 3 else ""),
            fix="use the base model and the configuration that the adapter was trained with",
        )
    if not trainable:
        with foreign_files(f"the adapter '{directory}' of type {config['peft_type']} cannot be folded into its base"):
            _untie_adapted(adapted)
            return adapted.merge_and_unload().eval()
    if set(_embeddings(stored)) - needed:
        # PEFT would save only embeddings that the adapter trains, and those that were saved beside it would be lost.
        adapted.save_pretrained = functools.partial(adapted.save_pretrained, save_embedding_layers=True)
    return adapted


def _read(directory: Path) -> dict[str, Tensor]:
    from peft.utils import load_peft_weights

    with foreign_files(f"the weight file '{ADAPTER_WEIGHTS}' is damaged", where=str(directory / ADAPTER_WEIGHTS)):
        found: dict[str, Tensor] = load_peft_weights(str(directory), device="cpu")
    return found


def _load(
    base: PreTrainedModel, directory: Path, stored: dict[str, Tensor], *, trainable: bool
) -> tuple[Any, list[str]]:
    """The adapted model, and the names of the tensors that have no place in it."""
    from peft import PeftModel
    from peft.utils import set_peft_model_state_dict

    with warnings.catch_warnings():
        # What PEFT warns of (settings that it does not know, keys that are missing) is looked at by this module.
        warnings.simplefilter("ignore")
        adapted = PeftModel.from_pretrained(base, str(directory), is_trainable=trainable)
        # PEFT keeps to itself which tensors it found no place for; loading them again tells.
        result = set_peft_model_state_dict(adapted, stored)
    return adapted, list(result.unexpected_keys)


def _needed(adapted: Any) -> set[str]:
    """The names of all tensors that the adapter trains, which its file must have."""
    from peft import get_peft_model_state_dict

    return set(get_peft_model_state_dict(adapted, save_embedding_layers=False))


def _check_biases(adapted: Any, directory: Path) -> None:
    """Refuse biases of factors (lora_bias) that have no bias of the base to be added to.

    PEFT trains such an adapter and cannot fold it in, so that a run that goes on from it could not be used.
    """
    for name, module in adapted.named_modules():
        factors = getattr(module, "lora_B", {})
        has_bias = any(getattr(factor, "bias", None) is not None for factor in getattr(factors, "values", list)())
        if has_bias and getattr(module.base_layer, "bias", None) is None:
            raise InputError(
                f"the adapter '{directory}' has biases (lora_bias) for layers without one, and cannot be folded in",
                where=f"{name} in {directory / ADAPTER_WEIGHTS}",
                fix="use an adapter that was trained without lora_bias",
            )


def _untie_adapted(adapted: Any) -> None:
    """Give modules that share their weight with an adapted one a copy, since the adapter does not change theirs.

    An adapter on the embedding of a model whose head is tied to it changes the embedding alone. Folded into the shared
    weight, it would change the head too.
    """
    import torch

    owners: dict[int, list[str]] = {}
    for name, parameter in adapted.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for names in owners.values():
        if len(names) == 1 or not any(".base_layer." in name for name in names):
            continue
        for name in names[1:]:
            path, _, last = name.rpartition(".")
            module = adapted.get_submodule(path)
            setattr(module, last, torch.nn.Parameter(getattr(module, last).detach().clone(), requires_grad=False))
        model_config = adapted.get_base_model().config
        model_config.tie_word_embeddings = text_config(model_config).tie_word_embeddings = False


def _embeddings(stored: dict[str, Tensor]) -> list[str]:
    """The names of whole embeddings, or of a whole head, saved beside the factors."""
    from peft.utils.constants import EMBEDDING_LAYER_NAMES

    ends = tuple(f".{name}{middle}.weight" for name in EMBEDDING_LAYER_NAMES for middle in ("", ".base_layer"))
    return [name for name in stored if name.endswith(ends)]


def _check_embeddings(base: PreTrainedModel, stored: dict[str, Tensor], directory: Path) -> None:
    """Refuse embeddings for another vocabulary than the base's, in words that say so."""
    rows = getattr(text_config(base.config), "vocab_size", None)
    for name in _embeddings(stored):
        found = stored[name].shape[0]
        if rows is not None and found != rows:
            raise InputError(
                f"the adapter '{directory}' was saved with embeddings for {found} tokens, and its base has {rows}",
                where=f"{name} in {directory / ADAPTER_WEIGHTS}",
                fix="merge it into its base with PEFT after model.resize_token_embeddings, and name the merged model",
            )
