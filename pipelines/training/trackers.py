"""What goes to the trackers of ``--report-to`` beside figures: answers of the model, as texts or as a table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from data_registry.core.errors import first_line
from pipelines.core.escaping import markdown_block

logger = logging.getLogger(__name__)

Lines = Sequence[Mapping[str, Any]]


def show_samples(callbacks: Sequence[Any], lines: Lines, step: int) -> None:
    """Send answers to those trackers among a trainer's callbacks that take texts: TensorBoard and Weights & Biases.

    Args:
        callbacks: the trainer's callbacks, among them those of the trackers.
        lines: the answers, as ``samples.jsonl`` has them.
        step: the step after which they were given.
    """
    for callback in callbacks:
        send = _SENDERS.get(type(callback).__name__)
        if send is None:
            continue
        try:
            send(callback, lines, step)
        except Exception as error:  # noqa: BLE001 - a tracker that cannot be reached must not end the training
            name = type(callback).__name__.removesuffix("Callback")
            logger.warning("%s did not take the answers: %s: %s", name, type(error).__name__, first_line(error))


def _to_tensorboard(callback: Any, lines: Lines, step: int) -> None:
    if callback.tb_writer is None:
        return
    for number, line in enumerate(lines, start=1):
        text = "\n\n".join([markdown_block(str(line["prompt"]), "text"), markdown_block(str(line["answer"]), "text")])
        callback.tb_writer.add_text(f"samples/{number}", text, step)


def _to_wandb(callback: Any, lines: Lines, step: int) -> None:
    tracker = callback._wandb
    if tracker is None or tracker.run is None:
        return
    columns = list(lines[0])
    table = tracker.Table(columns=columns, data=[[line[column] for column in columns] for line in lines])
    tracker.log({"samples": table, "train/global_step": step})


_SENDERS = {"TensorBoardCallback": _to_tensorboard, "WandbCallback": _to_wandb}
