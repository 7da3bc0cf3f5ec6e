"""The one place where a chat template runs: its errors are errors of the template, and its time is limited.

Chat templates are programs that come with a model. Whatever one of them raises, and whether it ends at all, says
something about the template and the conversation, and never about the command that rendered it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from data_registry.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TIME_LIMIT_S: Final = 10.0
"""Processor time that a template may take for one conversation, in seconds; those in use take a millisecond."""

_MAX_REASON: Final = 300


class EndlessTemplateError(InputError):
    """The chat template does not end; there is no use in trying it on another conversation."""


class _OutOfTime(BaseException):
    """A template ran out of its time; Jinja, which wraps the exceptions of templates, lets it through."""


def render_template(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False
) -> str:
    """The text that the tokenizer's chat template makes of a conversation.

    Args:
        tokenizer: the tokenizer, with a chat template.
        messages: the messages, each with ``role`` and ``content``.
        add_generation_prompt: whether the text ends where the next answer begins.

    Raises:
        InputError: the template refuses the conversation, fails on it, does not end, or makes an empty text of it.
    """
    with blamed_on_template():
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return _checked(text)


def render_marked(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], template: str
) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation, and the character ranges that the template marks with ``{% generation %}``.

    Args:
        tokenizer: the tokenizer, whose special tokens the template may name.
        messages: the messages, each with ``role`` and ``content``.
        template: the template.

    Raises:
        InputError: as for :func:`render_template`.
    """
    # apply_chat_template calls this function; its own mask loses the character ranges, hence the direct call.
    from transformers.utils.chat_template_utils import render_jinja_template

    with blamed_on_template():
        texts, ranges = render_jinja_template(
            [[dict(message) for message in messages]],
            chat_template=template,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
        return _checked(texts[0]), [(int(start), int(end)) for start, end in ranges[0]]


def _checked(text: object) -> str:
    if not isinstance(text, str) or not text:
        raise ValueError("it makes an empty text of it")
    return text


@contextlib.contextmanager
def blamed_on_template() -> Iterator[None]:
    """A context for a template at work: what it raises is its refusal, and it is ended when its time is over."""
    import jinja2

    try:
        with _time_limit(TIME_LIMIT_S):
            yield
    except _OutOfTime:
        raise _refused(f"it has not ended after {TIME_LIMIT_S:g} s of work", EndlessTemplateError) from None
    except jinja2.TemplateSyntaxError as error:
        raise _refused(f"it is not Jinja: {error.message} (line {error.lineno})") from error
    except (jinja2.TemplateError, ValueError) as error:
        raise _refused(str(error)) from error
    except Exception as error:  # templates are programs, and fail in any way
        raise _refused(f"{type(error).__name__}: {error}") from error


def _refused(reason: str, kind: type[InputError] = InputError) -> InputError:
    text = " ".join(reason.split()) or "it gives no reason"
    if len(text) > _MAX_REASON:
        text = f"{text[:_MAX_REASON]} ..."
    return kind(
        f"the chat template refuses the conversation: {text}",
        fix="change the data to what the template takes (system messages, roles in turn), or give another template "
        "with --chat-template FILE",
    )


# --- The time limit ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise ``_OutOfTime`` in the block once this thread has worked in it for so long.

    Processor time is counted, so that a busy machine ends no template. Signals reach the main thread alone, and there
    they also end a long computation inside of a single expression; another thread is looked at line by line.
    """
    limit = _by_signal if threading.current_thread() is threading.main_thread() else _by_line
    with limit(seconds):
        yield


@contextlib.contextmanager
def _by_signal(seconds: float) -> Iterator[None]:
    started = time.thread_time()

    def at_alarm(number: int, frame: FrameType | None) -> None:
        # The alarm counts the work of all threads of the process; only this one's matters.
        left = seconds - (time.thread_time() - started)
        if left <= 0:
            raise _OutOfTime
        signal.setitimer(signal.ITIMER_VIRTUAL, max(left, 0.01))

    previous = signal.signal(signal.SIGVTALRM, at_alarm)
    before = signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, *before)
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL if previous is None else previous)


@contextlib.contextmanager
def _by_line(seconds: float) -> Iterator[None]:
    deadline = time.thread_time() + seconds

    def at_line(frame: FrameType, event: str, argument: Any) -> Any:
        if time.thread_time() > deadline:
            raise _OutOfTime
        return at_line

    previous = sys.gettrace()
    sys.settrace(at_line)
    try:
        yield
    finally:
        sys.settrace(previous)
