"""Answers of the model as it learns: asked between two steps, kept in ``samples.jsonl``, shown to trackers.

Asking leaves no trace: modes, generators, buffers and what modules remember are put back, so that a run that is asked
has the weights of one that is not, to the bit.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data_registry.core.errors import InputError
from data_registry.schema import Message
from pipelines.configs.progress_samples import ProgressSamplesConfig
from pipelines.core.job import gather, is_main, rank, world_size
from pipelines.engine.shards.access import is_partitioned
from pipelines.engine.shards.other_passes import in_another_order
from pipelines.engine.untraced import modes_and_rng_kept
from pipelines.evaluation.answering.asking import Answer, answers_to, plan_batches, request_for
from pipelines.evaluation.answering.backend import TransformersBackend
from pipelines.evaluation.contract.answer import Decoding
from pipelines.models.limits import limits_of_model
from pipelines.sampling.conversations import read_conversations
from pipelines.tokens.chat_template import render_prompt
from pipelines.training.trackers import show_samples

logger = logging.getLogger(__name__)

MOST_PROMPTS = 32
_SHOWN_CHARACTERS = 100


@dataclass(frozen=True)
class Question:
    """A prompt that is asked again and again.

    Attributes:
        text: what was said, as people read it: the question alone, or the whole conversation with its roles.
        ids: its tokens, as the chat template writes it.
    """

    text: str
    ids: list[int]


def questions(path: Path, tokenizer: Any) -> list[Question]:
    """The prompts of a file, in tokens; at most ``MOST_PROMPTS``.

    Raises:
        InputError: the file cannot be used, or the chat template refuses a prompt.
    """
    conversations = read_conversations(path)
    if len(conversations) > MOST_PROMPTS:
        logger.info("%s: the first %d of %d prompts are asked", path, MOST_PROMPTS, len(conversations))
    found = []
    for messages in conversations[:MOST_PROMPTS]:
        # The template has written the special tokens already.
        ids = tokenizer(render_prompt(messages, tokenizer), add_special_tokens=False, verbose=False)["input_ids"]
        found.append(Question(_as_text(messages), list(ids)))
    return found


def _as_text(messages: Sequence[Message]) -> str:
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


class ProgressSamples(TrainerCallback):
    """Asks the model when due, writes its answers, and tells the trackers.

    Args:
        trainer: the trainer whose model is asked.
        config: the options of the answers, and the seed of sampled ones.
        path: the file that answers are appended to.
        seed: the seed of sampled answers.

    Raises:
        InputError: the prompts cannot be used.
    """

    def __init__(self, trainer: Any, config: ProgressSamplesConfig, path: Path, *, seed: int) -> None:
        assert config.sample_prompts is not None, "the configuration is checked for it"
        self._trainer, self._path, self._every = trainer, path, config.sample_every
        self._decoding = Decoding(config.sample_tokens, config.sample_temperature, seed=seed)
        self._questions = questions(config.sample_prompts, trainer.processing_class)
        check_room(self._questions, limits_of_model(trainer.accelerator.unwrap_model(trainer.model)).positions)
        self.seconds = 0.0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask if it is due. Collective."""
        step = state.global_step
        if step % self._every == 0 or step >= state.max_steps or control.should_training_stop:
            self._ask(step)

    def _ask(self, step: int) -> None:
        started = time.monotonic()
        answers = self._answers(step)
        self.seconds += time.monotonic() - started
        if not is_main():
            return
        lines = [
            {
                "step": step,
                "prompt": question.text,
                "answer": answer.text,
                "finish": "stop" if answer.finish == "end" else "length",
                "tokens": answer.num_tokens,
            }
            for question, answer in zip(self._questions, answers, strict=True)
        ]
        with self._path.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        logger.info(
            "step %d: %d answers in %.1f s; the first: %s",
            step, len(lines), time.monotonic() - started, _clipped(answers[0].text),
        )  # fmt: skip
        show_samples(self._trainer.callback_handler.callbacks, lines, step)

    def _answers(self, step: int) -> list[Answer]:
        """The answers of all ranks, in the order of the questions, on every rank."""
        module, engine, _ = self._trainer.prepared_engine()
        in_step = is_partitioned(module) and world_size() > 1
        # Adapters are within the layers of the model below, whose way of generating is the plain one.
        model = module.get_base_model() if hasattr(module, "peft_config") else module
        tokenizer, batch_size = self._trainer.processing_class, self._trainer.args.per_device_train_batch_size
        precision = self._trainer.accelerator.autocast() if engine is None else contextlib.nullcontext()
        with untouched(module), in_another_order(engine, model), precision:
            backend = TransformersBackend(model, tokenizer, self._decoding, in_training=True, in_step=in_step)
            batches, _ = plan_batches(
                [len(question.ids) for question in self._questions],
                context=backend.context,
                max_new_tokens=self._decoding.max_new_tokens,
                batch_size=batch_size,
            )
            requests = [
                [
                    request_for(backend, self._questions[index].ids, self._decoding, index, "training", step, index)
                    for index in batch
                ]
                for batch in _dealt(batches, in_step)
            ]
            made: dict[int, Answer] = {}
            for answers in answers_to(backend, tokenizer, requests, batch_size):
                made |= answers
        found = {index: answer for part in gather(made) for index, answer in part.items()}
        return [found[index] for index in range(len(self._questions))]

    def summary(self) -> dict[str, Any]:
        """What asking cost this process, for the manifest."""
        return {"sampling_s": round(self.seconds, 1)}


def _dealt(batches: list[list[int]], in_step: bool) -> list[list[int]]:
    """This rank's batches; where ranks have to go in step, those that have one less answer the first once more."""
    mine = batches[rank() :: world_size()]
    rounds = -(-len(batches) // world_size())
    return mine + [batches[0]] * (rounds - len(mine)) if in_step else mine


def check_room(asked: Sequence[Question], context: int | None) -> None:
    """Refuse prompts that leave no room for an answer.

    Raises:
        InputError: there is such a prompt.
    """
    for number, question in enumerate(asked, start=1):
        if context is not None and len(question.ids) >= context:
            raise InputError(
                f"prompt {number} of --sample-prompts has {len(question.ids)} tokens, and the model takes at most "
                f"{context} with the answer",
                fix="leave it out",
            )


@contextlib.contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """A context in which a module may generate in evaluation mode; afterwards it and all generators are as before.

    Beside modes and generators, buffers come back, also those that layers replace (rotary frequencies that grow with
    the sequence), and the plain numbers and switches that modules keep beside them.
    """
    buffers = {
        (inner, name): (buffer, None if buffer is None else buffer.detach().clone())
        for inner in module.modules()
        for name, buffer in inner._buffers.items()
    }
    plain = {
        inner: {name: value for name, value in vars(inner).items() if isinstance(value, bool | int | float)}
        for inner in module.modules()
    }
    with modes_and_rng_kept(module, training=False):
        try:
            yield
        finally:
            for (inner, name), (buffer, values) in buffers.items():
                if buffer is not None and values is not None:
                    buffer.detach().copy_(values)
                inner._buffers[name] = buffer
            for inner, kept in plain.items():
                vars(inner).update(kept)


def _clipped(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 3]}..."
