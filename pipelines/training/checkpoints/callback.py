"""The places of the trainer's loop where checkpoints are written and restored, and where a stopped run ends."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipelines.engine import processes
from pipelines.training.checkpoints.checkpointer import Checkpointer, preempted


class CheckpointCallback(TrainerCallback):
    """Asks for checkpoints when due, restores one, and ends the run once all ranks agree that it is to stop."""

    def __init__(self, trainer: Any, checkpointer: Checkpointer) -> None:
        self._trainer, self._checkpointer = trainer, checkpointer
        self._stopping = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._checkpointer.source is not None:
            self._checkpointer.load_progress(self._trainer)
        else:
            self._checkpointer.open(self._trainer)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._checkpointer.note_random_state()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        every, step = self._checkpointer.every, state.global_step
        if step >= state.max_steps or control.should_training_stop:
            # All that remains is to save the model, so the run finishes instead of stopping.
            return
        self._stopping = processes.stop_requested(args.device)
        if self._checkpointer.is_open and (self._stopping or (every > 0 and step % every == 0)):
            control.should_save = True
        elif self._stopping:
            self._checkpointer.stop(self._trainer)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._stopping:
            raise preempted(state.global_step, state.max_steps)
