"""What continues prompts, token by token: transformers here, vLLM in ``vllm_backend``; left padding, greedy by default.

Shapes: B prompts of a batch, L tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.evaluation.answering.requests import Request
from pipelines.evaluation.contract.answer import Decoding
from pipelines.models.limits import limits_of_model

if TYPE_CHECKING:
    from numpy.random import Generator
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


class Backend(Protocol):
    """Something that continues prompts: transformers, or vLLM.

    Attributes:
        context: most tokens of a prompt with its answer; None where there is no limit.
    """

    @property
    def context(self) -> int | None:
        """Most tokens of a prompt with its answer; None where there is no limit."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, seeds: Sequence[int]
    ) -> list[list[int]]:
        """The new tokens of each prompt, in order, up to and with the end of turn where there was one.

        Args:
            prompts: the prompts in tokens.
            max_new_tokens: the longest answer, in tokens.
            seeds: the seed of sampling of each prompt; greedy decoding uses none.
        """
        ...

    def continue_all(
        self, batches: Sequence[Sequence[Request]], *, batch_size: int
    ) -> Iterator[list[tuple[Request, list[int]]]]:
        """Continue the prompts of all batches; in which order is the backend's choice.

        Args:
            batches: prompts that may share a batch, of one limit and with room for all.
            batch_size: most prompts at a time.

        Yields:
            what is done: a batch, or about as many answers, each prompt with its new tokens as of :meth:`generate`.
        """
        ...

    def is_end(self, token: int) -> bool:
        """Whether a token ends an answer."""
        ...


def continue_batches(
    backend: Backend, batches: Sequence[Sequence[Request]]
) -> Iterator[list[tuple[Request, list[int]]]]:
    """The prompts of each batch with their new tokens, batch after batch."""
    for batch in batches:
        limit = min(request.max_new_tokens for request in batch)
        seeds = [request.seed for request in batch]
        made = backend.generate([request.ids for request in batch], max_new_tokens=limit, seeds=seeds)
        yield list(zip(batch, made, strict=True))


def room(longest: int, context: int | None, max_new_tokens: int) -> int:
    """Tokens that an answer may have after a prompt of ``longest`` tokens."""
    return max_new_tokens if context is None else min(max_new_tokens, context - longest)


class TransformersBackend:
    """Generation with a loaded model of transformers.

    Args:
        model: the model, on the device where it is to run.
        tokenizer: the model's tokenizer.
        decoding: how answers are made: length, temperature, seed.
        in_training: whether the model is in the middle of its training. Nothing that stays with it may then be made
            in inference mode, which later backward passes refuse.
        in_step: whether all processes make their tokens in step, as they must where each has only a part of every
            weight. All of them have to call :meth:`generate` equally often.

    Attributes:
        peak_bytes: most bytes of keys and values that rows which come and go one by one have held at a time.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        *,
        in_training: bool = False,
        in_step: bool = False,
    ) -> None:
        self._model, self._decoding = model, decoding
        self._in_training, self._in_step = in_training, in_step
        self.peak_bytes = 0
        own = model.generation_config.eos_token_id if model.generation_config is not None else None
        ends = own if isinstance(own, list) else [own]
        self._ends = sorted({int(token) for token in [*ends, tokenizer.eos_token_id] if token is not None})
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        assert isinstance(pad, int), "load_tokenizer gives every tokenizer a padding token"
        self._pad = pad

    @property
    def context(self) -> int | None:
        """See :class:`Backend`."""
        return limits_of_model(self._model).positions

    def is_end(self, token: int) -> bool:
        """See :class:`Backend`."""
        return token in self._ends

    def generate(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, seeds: Sequence[int], streamer: Any = None
    ) -> list[list[int]]:
        """See :class:`Backend`; a streamer of transformers sees the tokens of a single prompt as they are made."""
        import torch

        ids_BL, mask_BL = pad_left(prompts, self._pad)
        device = self._model.device
        without_gradients = torch.no_grad() if self._in_training else torch.inference_mode()
        with self._plain_configuration(max_new_tokens) as config, without_gradients:
            sequences_BL = self._model.generate(
                input_ids=ids_BL.to(device),
                attention_mask=mask_BL.to(device),
                generation_config=config,
                logits_processor=self._sampling(seeds),
                streamer=streamer,
                **({"synced_gpus": True} if self._in_step else {}),
            )
        return [self._up_to_end(row) for row in sequences_BL[:, ids_BL.shape[1] :].tolist()]

    def continue_all(
        self, batches: Sequence[Sequence[Request]], *, batch_size: int
    ) -> Iterator[list[tuple[Request, list[int]]]]:
        """See :class:`Backend`: rows come and go one by one where the model's cache allows it, else batch by batch."""
        from pipelines.evaluation.answering.row_support import takes_rows

        was_training = self._model.training
        self._model.eval()
        try:
            if self._in_step or not takes_rows(self._model):
                yield from continue_batches(self, batches)
            else:
                yield from self._continue_rows([request for batch in batches for request in batch], batch_size)
        finally:
            self._model.train(was_training)

    def _continue_rows(self, requests: Sequence[Request], batch_size: int) -> Iterator[list[tuple[Request, list[int]]]]:
        import torch

        from pipelines.evaluation.answering.continuing import Continuation

        continuation = Continuation(
            self._model,
            requests,
            batch_size=batch_size,
            ends=self._ends,
            choose=self._choose,
            mode=torch.no_grad if self._in_training else torch.inference_mode,
        )
        done: list[tuple[Request, list[int]]] = []
        for answered in continuation.run():
            done.append(answered)
            if len(done) == batch_size:
                yield done
                done = []
        if done:
            yield done
        self.peak_bytes = max(self.peak_bytes, continuation.peak_bytes)

    def _choose(self, logits_RV: Tensor, draws: Sequence[Generator]) -> Tensor:
        if self._decoding.is_greedy:
            return logits_RV.argmax(-1)
        from pipelines.evaluation.answering.sampling import draw

        return draw(logits_RV, draws, temperature=self._decoding.temperature, top_p=self._decoding.top_p)

    def _sampling(self, seeds: Sequence[int]) -> list[Any] | None:
        if self._decoding.is_greedy:
            return None
        from pipelines.evaluation.answering.sampling import SampledToken

        return [SampledToken(seeds, temperature=self._decoding.temperature, top_p=self._decoding.top_p)]

    def _up_to_end(self, tokens: list[int]) -> list[int]:
        end = next((index for index, token in enumerate(tokens) if token in self._ends), None)
        return tokens if end is None else tokens[: end + 1]

    @contextmanager
    def _plain_configuration(self, max_new_tokens: int) -> Iterator[GenerationConfig]:
        """The options of this decoding and no others.

        Many models bring a repetition penalty or a temperature of their own, which transformers would fill in.
        """
        from transformers import GenerationConfig

        # Sampled tokens are drawn prompt by prompt by a processor, which leaves greedy decoding one token to take.
        config = GenerationConfig(
            max_new_tokens=max_new_tokens, eos_token_id=self._ends or None, pad_token_id=self._pad, do_sample=False
        )
        own, was_training = self._model.generation_config, self._model.training
        self._model.generation_config = GenerationConfig(eos_token_id=self._ends or None, pad_token_id=self._pad)
        self._model.eval()
        try:
            yield config
        finally:
            self._model.generation_config = own
            self._model.train(was_training)


def pad_left(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """int64 ids and attention mask, both ``[B, L]``, with the padding on the left."""
    import torch

    longest = max(map(len, prompts))
    ids_BL = torch.full((len(prompts), longest), pad)
    mask_BL = torch.zeros_like(ids_BL)
    for row, prompt in enumerate(prompts):
        ids_BL[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask_BL[row, longest - len(prompt) :] = 1
    return ids_BL, mask_BL
