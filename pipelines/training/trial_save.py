"""What can fail when a run is saved is tried before its first step: configuration, generation options, tokenizer, card.

A failure at the end loses the run, and the same command would go on from its last checkpoint and fail there again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data_registry.core.errors import InputError, OgpsaError, first_line, is_out_of_memory
from pipelines.core.job import on_main


class TrialSave(TrainerCallback):
    """Saves everything but the weights once, when the trainer has prepared the model; the first of the callbacks.

    Args:
        trainer: the trainer.
        directory: the directory of the run being made; the trial is made in it, and removed.
        card: makes the text of the model card.
        source: the model, as the user named it, for messages.
    """

    def __init__(self, trainer: Any, directory: Path, card: Callable[[], str], source: str) -> None:
        self._trainer, self._directory, self._card, self._source = trainer, directory, card, source

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Try to save. Collective: rank zero does it, and all ranks fail together."""
        on_main(self._try)

    def _try(self) -> None:
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=".trial-") as folder:
            try_saving(self._trainer, Path(folder), self._source)
            card = self._card()
            (Path(folder) / "README.md").write_text(card, encoding="utf-8")


def try_saving(trainer: Any, folder: Path, source: str) -> None:
    """Save what belongs to a trained model except its weights.

    Args:
        trainer: the trainer, ready for its first step.
        folder: an empty directory.
        source: the model, as the user named it, for messages.

    Raises:
        InputError: something cannot be saved; the message says what.
    """
    bare = trainer.accelerator.unwrap_model(trainer.model)
    is_adapter = hasattr(bare, "peft_config")
    parts: dict[str, Callable[[], Any]] = {"tokenizer": lambda: trainer.processing_class.save_pretrained(str(folder))}
    if is_adapter:
        adapter = bare.peft_config[bare.active_adapter]
        parts["adapter's configuration"] = lambda: adapter.save_pretrained(str(folder))
    else:
        parts["configuration"] = lambda: bare.config.save_pretrained(str(folder))
        if bare.can_generate():
            parts["generation options"] = lambda: bare.generation_config.save_pretrained(str(folder))
    for name, save in parts.items():
        try:
            save()
        except (OgpsaError, OSError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"the {name} of '{source}' cannot be saved, so that a run from it would be lost at its end: "
                f"{type(error).__name__}: {first_line(error)}",
                fix="correct the files of the model; transformers loads them, and does not write them",
            ) from error
