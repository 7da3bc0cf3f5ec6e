"""Small models on disk, and what is said of those that cannot be used."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from data_registry.core.errors import InputError
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model

TOKENS = torch.arange(6)[None]


def tiny(seed: int = 0, **options) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    settings = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**settings, **options}))


def refusal(reference: Path | str, **options) -> InputError:
    with pytest.raises(InputError) as caught:
        load_model(resolve_model(str(reference)), precision="fp32", **options)
    assert "Traceback" not in str(caught.value)
    return caught.value


def adapt(base_dir: Path, target: Path, **options) -> torch.Tensor:
    """Save an adapter that changes the model, and return the logits of the adapted model."""
    base = load_model(resolve_model(str(base_dir)), precision="fp32")
    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, **options)
    adapted = get_peft_model(base, config).eval()
    adapted.save_pretrained(target)
    with torch.no_grad():
        return adapted(TOKENS).logits
