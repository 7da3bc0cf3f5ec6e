"""Conversations with models, answer by answer, each shown while it is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_registry.core.errors import InputError
from pipelines.configs.chat import ChatConfig
from pipelines.evaluation.answering.backend import TransformersBackend, room
from pipelines.evaluation.contract.answer import Decoding
from pipelines.models.limits import limits_of_model
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.tokens.chat_template import render_prompt
from pipelines.tokens.fitting import check_token_ids
from pipelines.tokens.tokenizer import load_source_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_UNFINISHED = "�"
"""What a decoder gives for the first bytes of a character whose others are still to come."""


@dataclass(frozen=True)
class Reply:
    """One answer of a model.

    Attributes:
        text: the answer without special tokens.
        num_tokens: made, the end of turn included.
        seconds: the time that it took, in seconds.
        is_cut: it ended at the limit, or was stopped.
    """

    text: str
    num_tokens: int
    seconds: float
    is_cut: bool


@dataclass
class Speaker:
    """A model in a conversation.

    Attributes:
        name: the name that headings show.
        model: the model, on its device.
        tokenizer: its tokenizer, with the chat template.
        decoding: how answers are made.
        system: message before the conversation; None for none.
        messages: what was said since the last reset.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    decoding: Decoding
    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)

    def reset(self) -> None:
        """Forget what was said."""
        self.messages.clear()

    def answer(self, text: str, show: Callable[[str], None]) -> Reply:
        """Answer a message.

        Args:
            text: the message.
            show: is called with each new piece of the answer; KeyboardInterrupt out of it, or at any time meanwhile,
                stops the answer, which stays in the conversation as far as it got.

        Raises:
            InputError: the template refuses the conversation, or it fills the model's context.
        """
        said = [*self.messages, {"role": "user", "content": text}]
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        prompt = render_prompt([*system, *said], self.tokenizer)
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        check_token_ids([ids], limits_of_model(self.model).num_embeddings, self.tokenizer)
        backend = TransformersBackend(self.model, self.tokenizer, self.decoding)
        limit = room(len(ids), backend.context, self.decoding.max_new_tokens)
        if limit < 1:
            raise InputError(
                f"the conversation has {len(ids)} tokens, and {self.name} takes at most {backend.context}",
                fix="begin anew with /reset",
            )
        stream = _Stream(self.tokenizer, show)
        started, was_stopped = time.monotonic(), False
        try:
            backend.generate([ids], max_new_tokens=limit, seeds=[self.decoding.seed + len(said)], streamer=stream)
            stream.end()
        except KeyboardInterrupt:
            was_stopped = True
        is_cut = was_stopped or not stream.tokens or not backend.is_end(stream.tokens[-1])
        self.messages = [*said, {"role": "assistant", "content": stream.text}]
        return Reply(stream.text, len(stream.tokens), time.monotonic() - started, is_cut)


def open_speaker(config: ChatConfig, reference: str) -> Speaker:
    """The model that a reference names, ready to answer."""
    import torch

    source = resolve_model(reference, revision=config.revision if reference == config.model else None)
    tokenizer = load_source_tokenizer(
        source, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code
    )
    model = load_model(source, precision=config.precision, trust_remote_code=config.trust_remote_code)
    if torch.cuda.is_available():
        model.to("cuda")
        # Until here the weights may have been views of files.
        source.check_unchanged()
    decoding = Decoding(config.max_new_tokens, config.temperature, config.top_p, config.seed)
    # What the template says of the system message is said before the first question.
    speaker = Speaker(reference, model, tokenizer, decoding, config.system)
    system = [] if config.system is None else [{"role": "system", "content": config.system}]
    render_prompt([*system, {"role": "user", "content": "Hello."}], tokenizer)
    return speaker


class _Stream:
    """Takes tokens from transformers as they are made, and hands on the text that they add."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, show: Callable[[str], None]) -> None:
        self.tokens: list[int] = []
        self.text = ""
        self._tokenizer, self._show = tokenizer, show
        self._is_prompt = True

    def put(self, value: Any) -> None:
        """Take the prompt, which comes first, or new tokens."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self.tokens += value.reshape(-1).tolist()
        self._hand_on(final=False)

    def end(self) -> None:
        """Hand on what was held back."""
        self._hand_on(final=True)

    def _hand_on(self, *, final: bool) -> None:
        text = self._tokenizer.decode(self.tokens, skip_special_tokens=True)
        # A later token may still change the end: the rest of a character, or how words are joined.
        if (text.endswith(_UNFINISHED) and not final) or not text.startswith(self.text):
            return
        piece, self.text = text[len(self.text) :], text
        if piece:
            self._show(piece)
