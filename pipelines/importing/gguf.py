"""A GGUF file as a plain model and tokenizer, read by transformers and freed of its quantisation."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from data_registry.core.errors import InputError
from pipelines.importing.splitting import set_splitting
from pipelines.models.foreign import foreign_files
from pipelines.models.loading import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DTYPES: Final = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Contents:
    """What a GGUF file says of itself.

    Attributes:
        metadata: its fields by name; arrays are lists.
        types: how many tensors there are of each type, such as ``{"Q4_1": 210, "F32": 61}``.
    """

    metadata: Mapping[str, Any]
    types: Mapping[str, int]

    @property
    def tokens(self) -> list[str]:
        """The vocabulary, by token id."""
        return list(self.metadata.get("tokenizer.ggml.tokens") or [])


@dataclass
class Imported:
    """A model as it was read.

    Attributes:
        model: in evaluation mode, on the CPU, in the type that is to be stored.
        original: as transformers read it, in float32.
        tokenizer: its tokenizer, which cuts text as the file says.
        contents: what the file says of itself.
        remarks: what a user has to know.
    """

    model: PreTrainedModel
    original: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    contents: Contents
    remarks: list[str] = field(default_factory=list)


def check_installed() -> None:
    """Refuse to go on without the package that reads GGUF files.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise InputError("reading GGUF files needs the package gguf", fix="pip install 'ogpsa[gguf]'")


def read_contents(path: Path) -> Contents:
    """Read the metadata of a GGUF file.

    Raises:
        InputError: the file is damaged, or is no language model.
    """
    from gguf import GGUFReader

    with foreign_files(f"'{path}' cannot be read", where=str(path), fix="download it again"):
        reader = GGUFReader(path)
        metadata = {name: entry.contents() for name, entry in reader.fields.items()}
        types: dict[str, int] = {}
        for tensor in reader.tensors:
            types[tensor.tensor_type.name] = types.get(tensor.tensor_type.name, 0) + 1
    if "tokenizer.ggml.tokens" not in metadata:
        raise InputError(
            f"'{path}' has no tokenizer", where=str(path), fix="name the file of the language model itself"
        )
    return Contents(metadata, types)


def read_gguf(path: Path, weights: str) -> Imported:
    """Read a model and its tokenizer.

    Args:
        path: the file.
        weights: the type of the weights: ``"fp32"``, ``"bf16"`` or ``"fp16"``.

    Raises:
        InputError: transformers cannot read the file, or does not know its architecture.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    contents = read_contents(path)
    with foreign_files(f"transformers cannot read '{path}'", where=str(path)), quiet():
        read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    imported = Imported(_plain(read, getattr(torch, _DTYPES[weights])), read.eval(), tokenizer, contents)
    metadata = contents.metadata
    _drop_foreign_tokens(tokenizer, len(contents.tokens))
    remark = set_splitting(tokenizer, str(metadata["tokenizer.ggml.model"]), metadata.get("tokenizer.ggml.pre"))
    if remark is not None:
        imported.remarks.append(remark)
    if not tokenizer.chat_template:
        imported.remarks.append("the file has no chat template; give one to every command with --chat-template")
    return imported


def _plain(read: PreTrainedModel, dtype: Any) -> PreTrainedModel:
    """The same weights in a model that knows nothing of GGUF, which transformers would refuse to save."""
    import torch

    settings = read.config.to_dict()
    settings.pop("quantization_config", None)
    settings.pop("_name_or_path", None)
    config = type(read.config).from_dict({name: _shortest(value) for name, value in settings.items()})
    config.architectures = [type(read).__name__]
    config.dtype = dtype
    with torch.device("meta"):
        model = type(read)(config)
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in read.state_dict().items()}, assign=True)
    model.tie_weights()
    # Buffers that are computed from the configuration are in no state dict.
    buffers = dict(read.named_buffers())
    for name, _ in list(model.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner).register_buffer(leaf, buffers[name], persistent=False)
    model.generation_config = read.generation_config
    return model.eval()


def _drop_foreign_tokens(tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Take out tokens that transformers adds to every tokenizer of a kind, beyond the ``size`` tokens of the file."""
    from tokenizers import Tokenizer

    stored = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in stored["added_tokens"] if token["id"] < size]
    if len(kept) < len(stored["added_tokens"]):
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps({**stored, "added_tokens": kept}))


def _shortest(value: Any) -> Any:
    """A number that went through float32 as it was written: 1e-05, not 9.999999747378752e-06."""
    import numpy as np

    return float(str(np.float32(value))) if isinstance(value, float) else value
