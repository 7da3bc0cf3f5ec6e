"""Small GGUF files, written from models of transformers by the package that llama.cpp's own converter uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM

HEADS, KEY_HEADS = 4, 2
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def small_model(vocabulary: int, *, tied: bool = False, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama of two layers."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        initializer_range=0.2, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def round_to_eight_bits(model: LlamaForCausalLM) -> None:
    """Replace the weights of the layers by what eight bits can hold, so that storing them so changes nothing more."""
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "layers" in name:
            held = gguf.dequantize(gguf.quantize(weight.detach().numpy(), kind), kind)
            weight.data = torch.from_numpy(np.array(held))


def vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types and merges: three special ones, all bytes, runs of spaces, two words."""
    merges = ["Ġ Ġ", "t h", "th e", "Ġ the"]
    tokens = ["<|pad|>", "<|start|>", "<|end|>", *sorted(ByteLevel.alphabet())]
    tokens += [merge.replace(" ", "") for merge in merges]
    return tokens, [3, 3, 3] + [1] * (len(tokens) - 3), merges


def permuted(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows as llama.cpp wants them for its rotary embedding: halves of a head interleaved."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    *,
    splitting: str | None = "smollm",
    template: str | None = TEMPLATE,
    quantised: bool = False,
    tokens: list[str] | None = None,
) -> None:
    """Write a model with the vocabulary of :func:`vocabulary`."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Small")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_vocab_size(config.vocab_size)
    found, types, merges = vocabulary()
    writer.add_tokenizer_model("gpt2")
    if splitting is not None:
        writer.add_tokenizer_pre(splitting)
    writer.add_token_list(tokens or found)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        _add(writer, name, tensor.numpy(), quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: gguf.GGUFWriter, name: str, weight: np.ndarray[Any, Any], quantised: bool) -> None:
    if name in _NAMES:
        target = _NAMES[name]
    else:
        _, _, layer, rest = name.split(".", 3)
        target = f"blk.{layer}.{_LAYER[rest.removesuffix('.weight')]}.weight"
        if "q_proj" in name or "k_proj" in name:
            weight = permuted(weight, HEADS if "q_proj" in name else KEY_HEADS)
    if quantised and weight.ndim == 2 and "blk" in target:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(target, gguf.quantize(weight, kind), raw_dtype=kind)
    else:
        writer.add_tensor(target, np.ascontiguousarray(weight))
