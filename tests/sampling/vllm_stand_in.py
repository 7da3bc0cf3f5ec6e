"""A stand-in for vLLM: its names and keywords as ogpsa uses them, and a plain loop over one prompt at a time.

vLLM itself needs a torch of its own, so that it cannot stand beside the one of the tests. As there, options that nobody
knows are an error, the token that ends an answer is the last of its tokens, and a request is drawn from by its own
seed whatever stands beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM


@dataclass
class SamplingParams:
    """The options of one request."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = 16
    stop_token_ids: list[int] = field(default_factory=list)
    detokenize: bool = True


@dataclass
class Engines:
    """What was asked of the stand-in.

    Attributes:
        opened: the number of models that were loaded.
        closed: the number of those whose processes were ended.
        requests: the options of all requests, in order.
    """

    opened: int = 0
    closed: int = 0
    requests: list[SamplingParams] = field(default_factory=list)


def install(monkeypatch: pytest.MonkeyPatch) -> Engines:
    """Let ``import vllm`` give the stand-in."""
    seen = Engines()

    class LLM:
        def __init__(
            self, model: str, *, tokenizer: str, dtype: str, generation_config: str, trust_remote_code: bool
        ) -> None:
            assert generation_config == "vllm", "a model's own sampling settings must not count"
            seen.opened += 1
            self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
            sizes = self._model.config
            self.llm_engine = SimpleNamespace(
                model_config=SimpleNamespace(
                    max_model_len=sizes.max_position_embeddings, get_vocab_size=lambda: sizes.vocab_size
                ),
                engine_core=SimpleNamespace(shutdown=self._shutdown),
            )

        def _shutdown(self) -> None:
            seen.closed += 1
            self._model = None

        def generate(
            self,
            prompts: Sequence[dict[str, list[int]]],
            sampling_params: Sequence[SamplingParams],
            *,
            use_tqdm: bool,
            lora_request: Any,
        ) -> list[Any]:
            assert len(prompts) == len(sampling_params)
            seen.requests += sampling_params
            found = [
                _answer(self._model, prompt["prompt_token_ids"], options)
                for prompt, options in zip(prompts, sampling_params, strict=True)
            ]
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(ids))]) for ids in found]

    module: Any = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    return seen


@torch.no_grad()
def _answer(model: Any, prompt: list[int], options: SamplingParams) -> list[int]:
    stream = None if options.seed is None else torch.Generator().manual_seed(options.seed)
    answer: list[int] = []
    while len(answer) < options.max_tokens and (not answer or answer[-1] not in options.stop_token_ids):
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, -1].double()
        answer.append(int(logits.argmax()) if options.temperature == 0 else _drawn(logits, options, stream))
    return answer


def _drawn(logits: Tensor, options: SamplingParams, stream: torch.Generator | None) -> int:
    probabilities, tokens = (logits / options.temperature).softmax(-1).sort(descending=True)
    # The smallest set of tokens that has the share.
    kept = probabilities.cumsum(-1) - probabilities < options.top_p
    return int(tokens[torch.multinomial(probabilities * kept, 1, generator=stream)])
