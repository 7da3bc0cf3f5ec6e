"""Small models on disk for masks, and runs that tracked their change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from data_registry.core.manifest import InputRecord
from pipelines.configs.train import TrainSftConfig
from pipelines.core.artifact import write_artifact
from pipelines.masks.opening import OpenMask
from pipelines.models.reference import resolve_model
from pipelines.weights.writing import MAX_FILE_BYTES, Layout, PlannedTensor, ShardedFiles


def make_model(path: Path, *, seed: int = 0, tied: bool = True, dtype: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=tied,
    )  # fmt: skip
    LlamaForCausalLM(config).to(dtype).save_pretrained(path)
    return path


def parameters(model: Path) -> dict[str, Tensor]:
    """As training sees them: each once, by the names of the model."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    return {name: p.detach() for name, p in loaded.named_parameters()}


def moved_model(model: Path, path: Path, change: Mapping[str, Tensor]) -> Path:
    """The model with its weights moved by a change."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    with torch.no_grad():
        for name, p in loaded.named_parameters():
            p.add_(change[name].to(p.dtype))
    loaded.save_pretrained(path)
    return path


def tracked_run(model: Path, path: Path, change: Mapping[str, Tensor]) -> Path:
    """A run from the model that says it moved each weight so far."""
    config = TrainSftConfig(model=str(model), data=[Path("data")], out=path, track_change=True)
    with write_artifact(path, "run", config, [resolve_model(str(model)).input_record()]) as writer:
        if change:
            (writer.path / "change").mkdir()
            plan = [PlannedTensor(name, torch.float32, (1, row.numel())) for name, row in change.items()]
            with ShardedFiles(writer.path / "change", plan, MAX_FILE_BYTES, Layout("change")) as files:
                for name, row in change.items():
                    files.add(name, row.abs().float().view(1, -1))
        else:
            save_file({"x": torch.zeros(1)}, writer.path / "x.safetensors")
    return path


def record_of(path: Path, kind: str, fingerprint: str) -> InputRecord:
    return InputRecord(role="model", path=str(path), kind=kind, fingerprint=fingerprint)


def flags_of(mask: OpenMask) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(mask.stored.flags(name, 0, torch.Size(shape).numel())).view(shape)
        for name, shape in mask.description.shapes.items()
    }
