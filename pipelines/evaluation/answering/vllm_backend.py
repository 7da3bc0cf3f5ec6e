"""Generation with vLLM, where it is installed: the same prompts in tokens, the same end of an answer, no defaults."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import ConfigError, InputError
from pipelines.evaluation.answering.backend import continue_batches
from pipelines.evaluation.answering.requests import Request
from pipelines.evaluation.contract.answer import Decoding
from pipelines.models.reference import ModelSource, model_directory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# vLLM takes one of these as the highest rank of adapters.
_MAX_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def check_installed() -> None:
    """Refuse ``--backend vllm`` where there is none.

    Raises:
        ConfigError: saying how to get it.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "--backend vllm: vLLM is not installed in this environment",
            fix="install it, best in an environment of its own (it brings its torch), or use --backend transformers",
        )


class VllmEngine:
    """A model loaded by vLLM, on this process's own device.

    Args:
        source: a model, or an adapter, which vLLM applies to its base.
        tokenizer: the model's tokenizer.
        precision: ``"fp32"`` or ``"bf16"``.
        local_rank: which of this machine's processes this is: it sees the GPU of that number alone.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        InputError: vLLM cannot load it.
    """

    def __init__(
        self,
        source: ModelSource,
        tokenizer: PreTrainedTokenizerBase,
        *,
        precision: str,
        local_rank: int,
        trust_remote_code: bool,
    ) -> None:
        _see_one_device(local_rank)
        import vllm  # type: ignore[import-not-found, unused-ignore]

        base = source if source.base is None else source.base
        settings: dict[str, Any] = {"enable_lora": True, "max_lora_rank": _rank(source)} if source.is_adapter else {}
        try:
            self.llm = vllm.LLM(
                model=str(model_directory(base)),
                tokenizer=str(source.tokenizer_source.directory),
                dtype="float32" if precision == "fp32" else "bfloat16",
                # A model's own sampling settings are not ours.
                generation_config="vllm",
                trust_remote_code=trust_remote_code,
                **settings,
            )
        except (ValueError, RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[-1:]
            raise InputError(
                f"vLLM cannot load the model: {''.join(reason) or type(error).__name__}",
                where=source.path_or_id,
                fix="try --backend transformers",
            ) from error
        self._vllm = vllm
        config = self.llm.llm_engine.model_config
        self.context: int | None = int(config.max_model_len)
        self.num_embeddings = int(config.get_vocab_size())
        self.ends = _ends(base, tokenizer)
        self.request: Any = None
        if source.is_adapter:
            from vllm.lora.request import LoRARequest  # type: ignore[import-not-found, unused-ignore]

            self.request = LoRARequest(source.name, 1, str(model_directory(source).resolve()))

    def backend(self, decoding: Decoding) -> VllmBackend:
        """This model, answering in one way."""
        return VllmBackend(self, decoding)

    def close(self) -> None:
        """End vLLM's processes and give the memory back."""
        self.llm.llm_engine.engine_core.shutdown()

    def continue_prompts(
        self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int | None], **sampling: Any
    ) -> list[list[int]]:
        """New tokens of each prompt, with vLLM's sampling options and a seed for each prompt."""
        inputs = [{"prompt_token_ids": list(ids)} for ids in prompts]
        options = [
            self._vllm.SamplingParams(stop_token_ids=self.ends, detokenize=False, seed=seed, **sampling)
            for seed in seeds
        ]
        found = self.llm.generate(inputs, options, use_tqdm=False, lora_request=self.request)
        return [list(result.outputs[0].token_ids) for result in found]


class VllmBackend:
    """See :class:`pipelines.evaluation.answering.backend.Backend`.

    Args:
        engine: the loaded model.
        decoding: how answers are made: length, temperature, seed.
    """

    def __init__(self, engine: VllmEngine, decoding: Decoding) -> None:
        self._engine, self._decoding = engine, decoding

    @property
    def context(self) -> int | None:
        """Most tokens of a prompt with its answer."""
        return self._engine.context

    def is_end(self, token: int) -> bool:
        """Whether a token ends an answer."""
        return token in self._engine.ends

    def continue_all(
        self, batches: Sequence[Sequence[Request]], *, batch_size: int
    ) -> Iterator[list[tuple[Request, list[int]]]]:
        """See :class:`pipelines.evaluation.answering.backend.Backend`; batch by batch."""
        return continue_batches(self, batches)

    def generate(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, seeds: Sequence[int]
    ) -> list[list[int]]:
        """The new tokens of each prompt, in order, up to and with the end of turn where there was one."""
        is_greedy = self._decoding.is_greedy
        return self._engine.continue_prompts(
            prompts,
            seeds=[None] * len(prompts) if is_greedy else seeds,
            max_tokens=max_new_tokens,
            temperature=self._decoding.temperature,
            **({} if is_greedy else {"top_p": self._decoding.top_p}),
        )


def _see_one_device(local_rank: int) -> None:
    """Let vLLM's own processes see this rank's GPU only, and not take themselves for part of this job."""
    import torch

    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        devices = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[local_rank]
    # This process has joined a process group already, and may have used the GPU.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def _rank(source: ModelSource) -> int:
    from peft import PeftConfig

    config: Any = PeftConfig.from_pretrained(str(model_directory(source)))
    highest = max([config.r, *(config.rank_pattern or {}).values()])
    return next((rank for rank in _MAX_RANKS if rank >= highest), highest)


def _ends(base: ModelSource, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer, as the transformers backend has them."""
    from transformers import AutoConfig, GenerationConfig

    try:
        own: Any = GenerationConfig.from_pretrained(str(base.directory)).eos_token_id
    except OSError:
        own = getattr(AutoConfig.from_pretrained(str(base.directory)).get_text_config(), "eos_token_id", None)
    ends = own if isinstance(own, list) else [own]
    return sorted({int(token) for token in [*ends, tokenizer.eos_token_id] if token is not None})
