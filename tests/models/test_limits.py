"""What a model has room for: the length that is said is used whole, and nothing beyond it is let through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from pipelines.models.limits import Limits, limits_of_directory, limits_of_model, limits_of_source
from pipelines.models.reference import resolve_model

WORDS, POSITIONS = 40, 24
NEW = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
OLD = {"vocab_size": WORDS, "n_embd": 16, "n_layer": 1, "n_head": 2}
ENCODER_DECODER = {
    "vocab_size": WORDS, "d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16,
    "is_decoder": True, "is_encoder_decoder": False,
}  # fmt: skip
# Settings of a small model, the positions that it can use, and whether more of them fail.
FAMILIES: dict[str, tuple[dict[str, Any], int | None, bool]] = {
    "llama": (NEW | {"max_position_embeddings": POSITIONS}, POSITIONS, False),
    "gpt2": (OLD | {"n_positions": POSITIONS}, POSITIONS, True),
    "gpt_bigcode": (OLD | {"n_positions": POSITIONS}, POSITIONS, True),
    "opt": (NEW | {"max_position_embeddings": POSITIONS, "ffn_dim": 16, "word_embed_proj_dim": 16}, POSITIONS, True),
    "bart": (ENCODER_DECODER | {"max_position_embeddings": POSITIONS}, POSITIONS, True),
    # Positions are counted from behind the padding token, whose id is 1.
    "roberta": (
        NEW | {"max_position_embeddings": POSITIONS, "is_decoder": True, "pad_token_id": 1},
        POSITIONS - 2,
        True,
    ),
    "mpt": (
        {"vocab_size": WORDS, "d_model": 16, "n_heads": 2, "n_layers": 1, "max_seq_len": POSITIONS},
        POSITIONS,
        True,
    ),
    "bloom": ({"vocab_size": WORDS, "hidden_size": 16, "n_layer": 1, "n_head": 2}, None, False),
}


def works(model: Any, ids: list[int]) -> bool:
    with torch.no_grad():
        try:
            model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
        except (IndexError, RuntimeError):
            return False
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_said_is_what_the_model_takes(family: str, tmp_path: Path) -> None:
    settings, positions, fails_beyond = FAMILIES[family]
    config = CONFIG_MAPPING[family](**settings)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert limits_of_model(model) == Limits(WORDS, positions)
    config.save_pretrained(tmp_path)
    assert limits_of_directory(tmp_path) == Limits(WORDS, positions)
    assert works(model, [5] * (positions or POSITIONS))
    assert works(model, [5] * ((positions or POSITIONS) + 1)) is not fails_beyond
    assert works(model, [WORDS - 1, 5])
    assert not works(model, [WORDS, 5])


def write_config(folder: Path, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", **NEW, **settings}))
    return folder


@pytest.mark.parametrize(
    ("scaling", "positions"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}, 96),
        ({"rope_type": "dynamic", "factor": 2.0}, 48),
        ({"type": "linear", "factor": 3.0}, 72),
        ({"rope_type": "default"}, 24),
    ],
)
def test_stretched_positions_count(tmp_path: Path, scaling: dict[str, Any], positions: int) -> None:
    folder = write_config(tmp_path / "model", max_position_embeddings=24, rope_scaling=scaling)
    assert limits_of_directory(folder).positions == positions


def test_a_nested_configuration(tmp_path: Path) -> None:
    text = {**NEW, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": POSITIONS}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    assert limits_of_directory(tmp_path) == Limits(WORDS, POSITIONS)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"model_type": "none such"}', '{"model_type": "llama", "hidden_size": "x"}']
)
def test_a_configuration_that_cannot_be_read_sets_no_limit(tmp_path: Path, content: str) -> None:
    assert limits_of_directory(tmp_path) == Limits()
    (tmp_path / "config.json").write_text(content)
    assert limits_of_directory(tmp_path) == Limits()


def test_embeddings_that_an_adapter_brings_count(tmp_path: Path) -> None:
    base = write_config(tmp_path / "base", max_position_embeddings=POSITIONS)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(base), "peft_type": "LORA"})
    )
    lora = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(90, 16)}
    save_file(lora, adapter / "adapter_model.safetensors")
    assert limits_of_source(resolve_model(str(adapter))) == Limits(WORDS, POSITIONS)
    saved = {"base_model.model.model.embed_tokens.weight": torch.zeros(WORDS + 2, 16)}
    save_file(lora | saved, adapter / "adapter_model.safetensors")
    assert limits_of_source(resolve_model(str(adapter))) == Limits(WORDS + 2, POSITIONS)
