"""The text part of a configuration: of models that also see, and of those that call their sizes otherwise."""

import json

import pytest
from transformers import BloomConfig, Gemma3Config, Gemma3TextConfig, GPT2Config, LlamaConfig, SiglipVisionConfig

from pipelines.models.summary import summarize_model
from pipelines.models.text_config import max_positions, text_config

TEXT = Gemma3TextConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2, max_position_embeddings=40)
SEEING = Gemma3Config(text_config=TEXT, vision_config=SiglipVisionConfig(hidden_size=8, num_hidden_layers=1))


@pytest.mark.parametrize(
    ("config", "sizes", "positions"),
    [
        (LlamaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2), (50, 16, 3), 2048),
        (SEEING, (60, 16, 2), 40),
        (GPT2Config(vocab_size=50, n_embd=16, n_layer=3, n_head=2, n_positions=32), (50, 16, 3), 32),
        (BloomConfig(vocab_size=50, hidden_size=16, n_layer=3, n_head=2), (50, 16, 3), None),
    ],
)
def test_sizes_are_those_of_the_text_model(config, sizes, positions, tmp_path):
    text = text_config(config)
    assert (text.vocab_size, text.hidden_size, text.num_hidden_layers) == sizes
    assert max_positions(config) == positions
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    found = summarize_model(tmp_path)
    assert (found.vocab_size, found.hidden_size, found.num_layers) == sizes


def test_a_configuration_of_other_code_stands_for_itself():
    class Own:
        vocab_size = 7

    own = Own()
    assert text_config(own) is own
    assert max_positions(own) is None
