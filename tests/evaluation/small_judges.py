"""Small judge models that say what they are told to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<unk>", "<s>", "</s>", "yes", "no", "safe", "unsafe", "good", "bad", "odd", "how", "Request:", "Reply:", "A"]
SAYS = {"bad": "yes", "good": "no", "odd": "how", "yes": "</s>", "no": "</s>", "safe": "</s>", "unsafe": "</s>"}


# As HarmBench's cards are made: one prompt for behaviours, another for behaviours with a context, and how to call it.
CARD = """---
license: mit
---
# Judge

```python
JUDGE_PROMPT = {
    "prompt": '''Request: {behavior}
Reply: {generation}''',
    "prompt_contextual": '''Request: [ {context} ] {behavior}
Reply: {generation}''',
}
inputs = [JUDGE_PROMPT['prompt'].format(behavior=behavior, generation=g) for g in generations]
```
"""


def save_tokenizer(path: Path, template: str | None = None) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.chat_template = template
    fast.save_pretrained(path)


def config(**options) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=24, bos_token_id=1, eos_token_id=2, pad_token_id=2, tie_word_embeddings=False,
        **options,
    )  # fmt: skip


def markov(model: torch.nn.Module, head: torch.Tensor) -> None:
    """Make what the head gives a function of the last word: no attention, no feed-forward, one-hot embeddings."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(WORDS), 16))
        head.copy_(torch.zeros_like(head))


def writing_judge(path: Path, says: Mapping[str, str] = SAYS, *, template: str | None = None, card: str = CARD) -> Path:
    model = LlamaForCausalLM(config())
    markov(model, model.lm_head.weight)
    with torch.no_grad():
        for word, following in says.items():
            model.lm_head.weight[WORDS.index(following), WORDS.index(word)] = 1.0
    model.save_pretrained(path)
    save_tokenizer(path, template)
    (path / "README.md").write_text(card)
    return path
