"""The tokenizer's own chat template: a conversation as text, and which of its characters are answers.

Answers are found by the template's ``{% generation %}`` marks, or else by rendering each beginning of the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from data_registry.core.errors import InputError
from pipelines.tokens.rendering import render_marked, render_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
Span = tuple[int, int]

_GENERATION_MARK: Final = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE: Final = "What is the colour of the sky?"
_OTHER_TEMPLATE: Final = (
    "give a template with --chat-template FILE; one that marks the answers with {% generation %} always works"
)


def render(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, train_from: int = 0
) -> tuple[str, list[Span]]:
    """The text that the template makes of a conversation, and the character ranges of the answers in it.

    Raises:
        InputError: as for :func:`encode`.
    """
    template = chat_template_of(tokenizer)
    if _GENERATION_MARK.search(template):
        text, spans = render_marked(tokenizer, messages, template)
        answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if len(spans) != len(answers):
            raise InputError(
                f"the chat template marks {len(spans)} answers in a conversation that has {len(answers)}",
                fix="put {% generation %} around each answer in the template",
            )
        spans = [span for index, span in zip(answers, spans, strict=True) if index >= train_from]
    else:
        text, spans = _render_by_prefixes(messages, tokenizer, train_from)
    _check_system(messages, text)
    _check_asked(messages, text, tokenizer)
    return text, spans


def render_prompt(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text that the template makes of a conversation that waits for an answer, up to where the answer begins.

    Raises:
        InputError: the template is missing, refuses the conversation, or leaves a system message or what is asked out.
    """
    chat_template_of(tokenizer)
    text = render_template(tokenizer, messages, add_generation_prompt=True)
    _check_system(messages, text)
    _check_asked(messages, text, tokenizer)
    return text


def chat_template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template.

    Raises:
        InputError: the tokenizer has none, or is a slow one, which cannot say which characters its tokens stand for.
    """
    name = tokenizer.name_or_path
    if not tokenizer.is_fast:
        raise InputError(
            f"the tokenizer of '{name}' has no fast version, which is needed to find the answers' tokens",
            fix="convert it once: AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(DIR)",
        )
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        named = tokenizer.chat_template
        if isinstance(named, Mapping) and named:
            raise InputError(
                f"the tokenizer of '{name}' has {len(named)} chat templates, and none of them is called default",
                where=", ".join(str(each)[:40] for each in list(named)[:5]),
                fix="write the one to use to a file, and give it with --chat-template FILE",
            ) from error
        raise InputError(
            f"the tokenizer of '{name}' has no chat template",
            fix="take that of an instruction-tuned model of the same family, or write one: --chat-template FILE",
        ) from error


def _check_system(messages: Sequence[Message], text: str) -> None:
    first = messages[0]
    if first["role"] == "system" and first["content"].strip() not in text:
        raise InputError(
            "the tokenizer's chat template leaves system messages out",
            fix="prepare the data without them, or give a template that has them with --chat-template FILE",
        )


def _check_asked(messages: Sequence[Message], text: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a template whose text is the same whatever a user says, such as a file that is no template at all."""
    for index, message in enumerate(messages):
        content = message["content"]
        if message["role"] != "user" or not isinstance(content, str) or content.strip() in text:
            continue
        # Some templates write a text in another way; only one that another text does not change leaves it out.
        other = [*messages[:index], {**message, "content": _PROBE}, *messages[index + 1 :]]
        if render_template(tokenizer, messages) == render_template(tokenizer, other):
            raise InputError(
                "the tokenizer's chat template leaves out what the user says",
                where=f"message {index + 1} of {len(messages)}",
                fix="give a template that writes every message with --chat-template FILE",
            )


def _render_by_prefixes(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, train_from: int
) -> tuple[str, list[Span]]:
    text = render_template(tokenizer, messages)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index < train_from:
            continue
        if index == 0:
            raise InputError("the conversation begins with an answer; the chat template cannot say where it starts")
        before = render_template(tokenizer, messages[:index], add_generation_prompt=True)
        last = index == len(messages) - 1
        through = text if last else render_template(tokenizer, messages[: index + 1])
        if not (text.startswith(before) and text.startswith(through) and len(before) <= len(through)):
            raise InputError(
                "the tokenizer's chat template writes an answer differently when the conversation goes on, so that "
                "its tokens cannot be told",
                where=f"message {index + 1} of {len(messages)}",
                fix=_OTHER_TEMPLATE,
            )
        spans.append((len(before), _end_of_turn(through, len(before), message["content"])))
    return text, spans


def _end_of_turn(text: str, start: int, content: str) -> int:
    """Where the trained part of the turn at the end of ``text`` stops: before white space after the turn's end mark."""
    end = len(text.rstrip())
    if text[start:end].endswith(content.rstrip()):
        return len(text)  # In this template only white space ends a turn, so the white space must be learnt.
    return end
