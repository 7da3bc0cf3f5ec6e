"""Acting on the held-out loss: stopping early, and keeping the weights with the lowest loss."""

from __future__ import annotations

import logging
import math
import os
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from pipelines.configs.heldout import HeldOutConfig
from pipelines.core.job import barrier, on_main
from pipelines.core.placing import put_in_place
from pipelines.training.data.heldout import HeldOut, measure

logger = logging.getLogger(__name__)
_PREFIX = "best-"
_MEASUREMENTS = 10


class HeldOutCallback(TrainerCallback, ExportableState):
    """Measures the held-out loss when due, keeps the best weights and ends training early if asked to.

    A checkpoint holds ``state()``; the best weights are in a directory of their own, whichever checkpoints are kept.

    Args:
        trainer: the trainer whose model is measured.
        held_out: the rows and sums that are measured.
        config: the options that say when to measure, and what depends on the loss.
        directory: the directory in which the best weights are kept.
    """

    def __init__(self, trainer: Any, held_out: HeldOut, config: HeldOutConfig, directory: Path) -> None:
        self._trainer, self._held_out, self._config, self._directory = trainer, held_out, config, directory
        self.best_loss, self.best_step = math.inf, 0
        self.mark, self.num_without = math.inf, 0
        self.is_stopped = False

    def state(self) -> dict[str, Any]:
        """The values that a checkpoint keeps."""
        names = ("best_loss", "best_step", "mark", "num_without")
        return {"args": {}, "attributes": {name: getattr(self, name) for name in names}}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure the held-out loss if it is due."""
        every = self._config.eval_every or max(1, state.max_steps // _MEASUREMENTS)
        if state.global_step % every == 0 or state.global_step >= state.max_steps:
            self._measure(state, control)

    def _measure(self, state: TrainerState, control: TrainerControl) -> None:
        loss = measure(self._trainer, self._held_out)["eval_loss"]
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, state.global_step
            if self._config.select == "best":
                self._keep(state.global_step)
        if loss < self.mark - self._config.min_delta:
            self.mark, self.num_without = loss, 0
        else:
            self.num_without += 1
        patience = self._config.early_stopping
        if patience is not None and self.num_without >= patience and state.global_step < state.max_steps:
            logger.info(
                "stopped early at step %d: no lower held-out loss in %d measurements (%.4g at step %d)",
                state.global_step, patience, self.best_loss, self.best_step,
            )  # fmt: skip
            self.is_stopped = True
            control.should_training_stop = control.should_log = True

    def _keep(self, step: int) -> None:
        """Save the present weights aside as the best ones. Collective."""
        final = self._directory / f"{_PREFIX}{step}"
        aside = final.with_name(f".{final.name}")
        on_main(lambda: _make_empty(aside))
        self._trainer.save_model(str(aside))
        barrier()
        on_main(lambda: self._put_in_place(aside, final))

    def _put_in_place(self, aside: Path, final: Path) -> None:
        put_in_place(aside, final, replace=final.exists())
        for other in self._directory.glob(f"{_PREFIX}*"):
            if other != final:
                shutil.rmtree(other, ignore_errors=True)

    def save_chosen(self, target: Path) -> int:
        """Put the model that the options choose into ``target``. Collective.

        Returns:
            the step after which its weights were taken.
        """
        step = int(self._trainer.state.global_step)
        if self._config.select == "best" and self.best_step != step:
            return on_main(lambda: self._move(target))
        self._trainer.save_model(str(target))
        return step

    def _move(self, target: Path) -> int:
        kept = max(self._directory.glob(f"{_PREFIX}*"), key=_step_of)
        step = _step_of(kept)
        if step != self.best_step:
            # The run was resumed from an earlier checkpoint, and has not reached so low a loss again.
            logger.warning("the weights with the lowest held-out loss are those of step %d", step)
        os.rename(kept, target)
        return step

    def summary(self) -> dict[str, Any]:
        """Figures for the manifest and the card."""
        figures: dict[str, Any] = {"best_eval_loss": self.best_loss, "best_eval_step": self.best_step}
        if self.is_stopped:
            figures["stopped_early"] = int(self._trainer.state.global_step)
        return figures


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _make_empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
