"""Packed rows: their losses are those of the rows alone, and a model that mixes rows is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from data_registry.core.errors import ConfigError
from pipelines.commands import train_sft
from pipelines.configs.train import TrainSftConfig
from pipelines.models.reference import resolve_model
from pipelines.tokens.tokenizer import load_tokenizer
from pipelines.training import sft
from pipelines.training.data.packing import check_isolation, num_sequences
from tests.distributed import worlds
from tests.reference import plain

NUM_ROWS, LENGTH = 23, 200
Row = dict[str, list[int]]


def make_qwen(path: Path) -> Path:
    tokenizer = load_tokenizer(worlds.MODEL_DIR)
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.1,
    )
    Qwen2ForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("packing")
    worlds.make_model(directory / "llama")
    make_qwen(directory / "qwen2")
    worlds.make_data(directory / "data", NUM_ROWS, seed=5)
    return directory


def config(world: Path, model: str, out: Path, **options: Any) -> TrainSftConfig:
    values: dict[str, Any] = {"max_length": LENGTH, "precision": "fp32", "batch_size": 1, "accumulation": 1, **options}
    return TrainSftConfig(model=str(world / model), data=world / "data", out=out, **values)


def packed_trainer(world: Path, model: str, out: Path, attention: str) -> Any:
    options = config(world, model, out, packing=True, attention=attention)
    return sft.make_trainer(options, resolve_model(options.model), None, out, torch.device("cpu"))


def row_losses(trainer: Any) -> dict[tuple[int, ...], float]:
    """Summed loss of every row, by its tokens, from the packed sequences as the trainer's loader gives them."""
    found = {}
    for batch in trainer.get_train_dataloader():
        with torch.no_grad():
            losses = -trainer.model(**batch, use_cache=False, fused_lm_head=True).log_probs[0]
        starts = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), batch["input_ids"].shape[1]]
        for start, stop in pairwise(starts):
            found[tuple(batch["input_ids"][0, start:stop].tolist())] = float(losses[start : stop - 1].double().sum())
    return found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model", ["llama", "qwen2"])
def test_a_rows_loss_is_that_of_the_row_alone(world: Path, model: str, attention: str, tmp_path: Path) -> None:
    trainer = packed_trainer(world, model, tmp_path, attention)
    assert len(trainer.train_dataset) < NUM_ROWS // 2
    packed = row_losses(trainer)
    rows = worlds.encoded(world / "data", world / model)
    assert len(packed) == len(rows) == NUM_ROWS
    network = AutoModelForCausalLM.from_pretrained(world / model, dtype=torch.float32, attn_implementation="eager")
    for row in rows:
        trained = sum(label != -100 for label in row["labels"][1:])
        alone = float(plain.mean_token_loss(network, [row]).detach()) * trained
        assert packed[tuple(row["input_ids"])] == pytest.approx(alone, rel=2e-6)


def test_a_packed_step_is_the_step_on_the_rows(world: Path, tmp_path: Path) -> None:
    """All rows in one optimizer step: weights and logged loss must not tell how they were laid out."""
    common: dict[str, Any] = {"max_steps": 1, "learning_rate": 1e-3, "schedule": "constant"}
    common["trainer"] = {"adam_epsilon": 1e-3}
    sequences = num_sequences(train_dataset(world), LENGTH)
    packed = config(world, "llama", tmp_path / "packed", packing=True, accumulation=sequences, **common)
    padded = config(world, "llama", tmp_path / "padded", batch_size=NUM_ROWS, **common)
    runs = [train_sft.run(options) for options in (packed, padded)]
    weights = [load_file(run.path / "model" / "model.safetensors") for run in runs]
    start = load_file(world / "llama" / "model.safetensors")
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], rtol=0, atol=2e-7), name
    assert max(float((weights[0][name] - start[name]).abs().max()) for name in start) > 1e-4
    assert runs[0].manifest.summary["loss"] == pytest.approx(runs[1].manifest.summary["loss"], rel=1e-6)


def train_dataset(world: Path) -> Any:
    import datasets

    from pipelines.tokens.conversations import encode_dataset

    rows = datasets.load_from_disk(str(world / "data"))
    return encode_dataset(rows, load_tokenizer(world / "llama"), LENGTH)


def test_a_model_that_mixes_rows_is_refused(world: Path, tmp_path: Path) -> None:
    trainer = packed_trainer(world, "llama", tmp_path, "sdpa")
    forward = trainer.model.forward

    def blind(*arguments: Any, position_ids: Tensor | None = None, **options: Any) -> Any:
        return forward(*arguments, **options)  # As layers do that go by no attention mask.

    first, second = list(range(10, 30)), list(range(40, 60))
    trainer.model.train()
    check_isolation(trainer, first, second)
    trainer.model.forward = blind
    with pytest.raises(ConfigError, match="see each other in LlamaForCausalLM"):
        check_isolation(trainer, first, second)
    assert trainer.model.training
