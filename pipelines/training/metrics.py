"""The run's own log: ``metrics.jsonl``, with one line per logged step, and progress on the console."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipelines.core.progress import Progress


class MetricsCallback(TrainerCallback):
    """Writes every logged line of rank zero to ``metrics.jsonl`` and shows progress.

    Args:
        path: the file that lines are appended to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: TextIO | None = None
        self._progress: Progress | None = None
        self._figures = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._stream = self._path.open("a", encoding="utf-8")
        self._progress = Progress("training", total=state.max_steps, unit="steps", start=state.global_step)
        self._progress.__enter__()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress.advance(1, self._figures)
        if state.global_step == state.max_steps:
            # The last step gets a line of its own, whatever the interval.
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs:
            return
        if "loss" in logs:
            removed = logs.get("projection/removed")
            self._figures = f"loss {logs['loss']:.3f}" + (f", removed {removed:.2f}" if removed is not None else "")
            if "tokens_per_second" in logs:
                self._figures += f", {logs['tokens_per_second']:,.0f} tokens/s"
        if self._stream is not None:
            self._stream.write(json.dumps({"step": state.global_step, **logs}, default=float) + "\n")
            self._stream.flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the progress display and close the file."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
