"""All answers of a model to what suites ask: prompts in tokens, batches of like length, each stored when it is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_registry.core import stopping
from data_registry.core.errors import InputError, Preempted
from pipelines.core.job import barrier, on_main, rank, world_size
from pipelines.core.progress import Progress
from pipelines.engine import processes
from pipelines.evaluation.answering.backend import Backend, room
from pipelines.evaluation.answering.requests import Request
from pipelines.evaluation.answering.sampling import seed_of
from pipelines.evaluation.answering.store import AnswerStore
from pipelines.evaluation.contract.answer import Decoding, Finish, StoredAnswer
from pipelines.evaluation.contract.suite import PromptItem
from pipelines.tokens.chat_template import render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# A process that was asked to stop tells the others so between batches; each batch has its own number.
_STOP_MARK = ".stop"


@dataclass(frozen=True)
class Answer:
    """What a model said to one prompt.

    Attributes:
        text: the answer without special tokens; empty where the prompt was too long.
        finish: how the answer ended.
        num_tokens: tokens made, the end of turn included.
    """

    text: str
    finish: Finish
    num_tokens: int


@dataclass(frozen=True)
class Asked:
    """Prompts in tokens, ready to be answered.

    Attributes:
        items: the prompts that are asked.
        texts: the prompts as the template writes them.
        ids: their tokens.
    """

    items: Sequence[PromptItem]
    texts: list[str]
    ids: list[list[int]]


def ask(items: Sequence[PromptItem], tokenizer: PreTrainedTokenizerBase) -> Asked:
    """The prompts of items as the tokenizer's chat template writes them.

    Raises:
        InputError: the template is missing or refuses an item.
    """
    texts = []
    for item in items:
        try:
            texts.append(render_prompt(item.messages, tokenizer))
        except InputError as error:
            raise InputError(error.what, where=error.where or f"{item.suite}, item {item.id}", fix=error.fix) from error
    # The template has written the special tokens already.
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return Asked(items, texts, ids)


def answer_all(
    asked: Asked,
    tokenizer: PreTrainedTokenizerBase,
    backend: Backend,
    decoding: Decoding,
    *,
    folder: Path,
    identity: str,
    batch_size: int,
    label: str,
) -> list[StoredAnswer]:
    """Answer every prompt, or find its answer stored; collective over the processes of the job.

    Answers are stored some at a time as they are made, so that a run which was killed goes on with those that are
    missing. An answer does not depend on what is made beside it, on the number of processes, or on where a run went
    on, unless two next tokens are as likely as each other up to rounding.

    Args:
        asked: the prompts in tokens, from :func:`ask`.
        tokenizer: the tokenizer that decodes the answers.
        backend: this process's copy of the model.
        decoding: how answers are made: length, temperature, seed.
        folder: where answers are kept while the run goes on; the same on all processes.
        identity: hash of all that answers depend on beside the prompts.
        batch_size: most prompts at a time.
        label: the label of the progress bar.

    Returns:
        The answers in the order of the items, on every process.

    Raises:
        InputError: a prompt has no tokens.
        Preempted: a process was asked to stop; what was answered is stored.
    """
    stop_mark = folder / _STOP_MARK
    on_main(lambda: _prepare(folder, stop_mark))
    store = AnswerStore(folder, identity)
    before = _matching(store, asked)
    barrier()
    batches, too_long = _planned(asked, backend, decoding, batch_size)
    mine = [[index for index in batch if index not in before] for batch in batches[rank() :: world_size()]]
    requests = [[_request(backend, asked, decoding, index) for index in batch] for batch in mine if batch]
    if before:
        logger.info("%s: %d of %d answers are there already", label, len(before), len(asked.items))
    started = time.monotonic()
    with stopping.deferred(), Progress(label, total=sum(map(len, mine)), unit="prompts") as progress:
        num_tokens = 0
        for answers in answers_to(backend, tokenizer, requests, batch_size):
            store.append([_stored(asked, index, answer) for index, answer in answers.items()])
            num_tokens += sum(answer.num_tokens for answer in answers.values())
            progress.advance(len(answers), _speed(num_tokens, time.monotonic() - started))
            if _is_to_stop(stop_mark):
                break
        # All processes come here, those that were asked to stop and those that saw the mark; it is a barrier too.
        if processes.stop_requested(processes.start()):
            done = len(_matching(store, asked))
            raise Preempted(
                f"stopped with {done} of {len(asked.items)} answers: stored; the same command goes on from there"
            )
    found = _matching(store, asked)
    # The first process goes on to put the artifact in place, and the folder is gone with that.
    barrier()
    _report(label, [answer for index, answer in found.items() if index not in before], time.monotonic() - started)
    found.update((index, _stored(asked, index, Answer("", "too_long", 0))) for index in too_long)
    return [found[index] for index in range(len(asked.items))]


def _planned(asked: Asked, backend: Backend, decoding: Decoding, batch_size: int) -> tuple[list[list[int]], list[int]]:
    """See :func:`plan_batches`. A prompt without tokens is refused by all processes, before any answers."""
    for item, ids in zip(asked.items, asked.ids, strict=True):
        if not ids:
            raise InputError(
                f"the prompt of {item.suite}, item {item.id}, has no tokens, and nothing can be said to it",
                fix="look at the item, and at what the chat template makes of it",
            )
    return plan_batches(
        [len(ids) for ids in asked.ids],
        context=backend.context,
        max_new_tokens=decoding.max_new_tokens,
        batch_size=batch_size,
    )


def _speed(num_tokens: int, seconds: float) -> str:
    return f"{num_tokens / max(seconds, 1e-9):.0f} tokens/s" + (" each" if world_size() > 1 else "")


def _is_to_stop(stop_mark: Path) -> bool:
    """Whether this process or another was asked to stop; the others learn it from the mark."""
    if stopping.requested() is not None:
        stop_mark.touch()
    return stop_mark.exists()


def _prepare(folder: Path, stop_mark: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stop_mark.unlink(missing_ok=True)


def _matching(store: AnswerStore, asked: Asked) -> dict[int, StoredAnswer]:
    """Stored answers to these very prompts, by index."""
    stored = store.load()
    keys = [(item.suite, item.id, text) for item, text in zip(asked.items, asked.texts, strict=True)]
    return {index: stored[key] for index, key in enumerate(keys) if key in stored}


def _stored(asked: Asked, index: int, answer: Answer) -> StoredAnswer:
    item = asked.items[index]
    return StoredAnswer(
        suite=item.suite,
        id=item.id,
        group=item.group,
        category=item.category,
        question=next((message["content"] for message in reversed(item.messages) if message["role"] == "user"), ""),
        prompt=asked.texts[index],
        answer=None if answer.finish == "too_long" else answer.text,
        expected=item.expected,
        finish=answer.finish,
        num_prompt_tokens=len(asked.ids[index]),
        num_tokens=answer.num_tokens,
        context=item.context,
    )


def _report(label: str, made: Sequence[StoredAnswer], seconds: float) -> None:
    if made:
        tokens = sum(answer.num_tokens for answer in made)
        speed = tokens / max(seconds, 1e-9)
        logger.info("%s: %d answers, %d tokens, %.0f tokens/s", label, len(made), tokens, speed)


def plan_batches(
    lengths: Sequence[int], *, context: int | None, max_new_tokens: int, batch_size: int
) -> tuple[list[list[int]], list[int]]:
    """Indices of prompts in batches, longest prompts first, and those that do not fit into the context.

    Prompts that leave less room than ``max_new_tokens`` share a batch only with prompts of the same length. So every
    prompt gets exactly the room that it would have alone, and no position lies beyond the context.

    Args:
        lengths: tokens of each prompt.
        context: the model's context in tokens; see :class:`Backend`.
        max_new_tokens: the longest answer to every prompt, in tokens.
        batch_size: most prompts of a batch.
    """
    too_long = [index for index, length in enumerate(lengths) if context is not None and length >= context]
    excluded = set(too_long)
    order = sorted((index for index in range(len(lengths)) if index not in excluded), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for index in order:
        key = _cut_length(lengths[index], context, max_new_tokens)
        last = batches[-1] if batches else None
        if last is None or len(last) == batch_size or _cut_length(lengths[last[0]], context, max_new_tokens) != key:
            batches.append([index])
        else:
            last.append(index)
    return batches, too_long


def _cut_length(length: int, context: int | None, max_new_tokens: int) -> int | None:
    """The length of a prompt whose answer has less room than wanted; None for the others, which may be mixed."""
    return length if room(length, context, max_new_tokens) < max_new_tokens else None


def request_for(backend: Backend, ids: Sequence[int], decoding: Decoding, number: int, *which: object) -> Request:
    """The request for one prompt of :func:`plan_batches`, with a seed that is made of ``which`` answer it is."""
    limit = room(len(ids), backend.context, decoding.max_new_tokens)
    return Request(ids, limit, seed_of(decoding.seed, *which), number)


def _request(backend: Backend, asked: Asked, decoding: Decoding, index: int) -> Request:
    # Each answer has a seed of its own, so that it is the same whatever is beside it, and again.
    return request_for(backend, asked.ids[index], decoding, index, asked.items[index].suite, asked.items[index].id)


def answers_to(
    backend: Backend, tokenizer: PreTrainedTokenizerBase, batches: Sequence[Sequence[Request]], batch_size: int
) -> Iterator[dict[int, Answer]]:
    """Answers to batches of :func:`plan_batches` by the numbers of their requests, some at a time as they are made."""
    for made in backend.continue_all(batches, batch_size=batch_size):
        yield _read(backend, tokenizer, made)


def _read(
    backend: Backend, tokenizer: PreTrainedTokenizerBase, made: Sequence[tuple[Request, list[int]]]
) -> dict[int, Answer]:
    texts = tokenizer.batch_decode([tokens for _, tokens in made], skip_special_tokens=True)
    return {
        request.number: Answer(text, "end" if tokens and backend.is_end(tokens[-1]) else "length", len(tokens))
        for text, (request, tokens) in zip(texts, made, strict=True)
    }
