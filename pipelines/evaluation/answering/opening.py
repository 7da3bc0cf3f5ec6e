"""The model that answers: loaded by transformers or vLLM, and made a backend for prompts in tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.evaluation.answering.asking import Asked
from pipelines.evaluation.answering.backend import Backend, TransformersBackend
from pipelines.evaluation.answering.vllm_backend import VllmEngine
from pipelines.evaluation.contract.answer import Decoding
from pipelines.models.limits import limits_of_model
from pipelines.models.loading import load_model
from pipelines.models.reference import ModelSource
from pipelines.tokens.fitting import check_token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def open_model(
    source: ModelSource,
    tokenizer: PreTrainedTokenizerBase,
    *,
    backend: str,
    precision: str,
    trust_remote_code: bool,
    device: torch.device,
) -> PreTrainedModel | VllmEngine:
    """Load the model on this process's device.

    Args:
        source: the model.
        tokenizer: the model's tokenizer, which vLLM needs.
        backend: ``"transformers"`` or ``"vllm"``.
        precision: ``"fp32"`` or ``"bf16"``.
        trust_remote_code: whether to run Python code that comes with the model.
        device: the device of this process.

    Raises:
        InputError: the model cannot be loaded.
        ArtifactError: the model changed while it was being read.
    """
    if backend == "vllm":
        return VllmEngine(
            source, tokenizer, precision=precision, local_rank=device.index or 0, trust_remote_code=trust_remote_code
        )
    model = load_model(source, precision=precision, trust_remote_code=trust_remote_code)
    if device.type == "cuda":
        model.to(device)
        # Until here the weights may have been views of files.
        source.check_unchanged()
    return model


def backend_of(
    model: PreTrainedModel | VllmEngine, tokenizer: PreTrainedTokenizerBase, asked: Asked, decoding: Decoding
) -> Backend:
    """The backend that answers prompts with a model.

    Raises:
        InputError: the tokenizer gives tokens that the model has no embeddings for.
    """
    if isinstance(model, VllmEngine):
        check_token_ids(asked.ids, model.num_embeddings, tokenizer)
        return model.backend(decoding)
    check_token_ids(asked.ids, limits_of_model(model).num_embeddings, tokenizer)
    return TransformersBackend(model, tokenizer, decoding)
