"""Saving a finished run: the final model, and the files that describe how it was made."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from data_registry.core.errors import OgpsaError, first_line
from data_registry.core.manifest import InputRecord
from pipelines.configs.train import TrainConfig
from pipelines.core.job import barrier, is_main
from pipelines.models.reference import ModelSource
from pipelines.training.card import model_card
from pipelines.training.checkpoints.run_files import BEST_FOLDER, LAYERS_FILE, METRICS_FILE, PLOTS_FOLDER, WORK_FOLDER
from pipelines.training.metrics import read_metrics
from pipelines.training.movement import relative_change
from pipelines.training.remarks import learned, losses_of, remarks

logger = logging.getLogger(__name__)

# Figures of the last logged line that the manifest keeps, one for each reference, anchor or data set.
_BY_NAME: Final = (
    *("projection/leak/", "projection/reference_loss/", "safety/", "anchor/", "prompt/", "forget/", "retain/"),
    "tokens/",
)


def save_run(
    trainer: Any,
    config: TrainConfig,
    method: str,
    source: ModelSource,
    partial: Path,
    inputs: list[InputRecord],
) -> dict[str, Any]:
    """Save the final model and the run's description. Collective; rank zero alone writes, except for sharded weights.

    Returns:
        The figures for the manifest, on rank zero.
    """
    held_out = trainer.held_out
    if held_out is None:
        trainer.save_model(str(partial / "model"))
    else:
        saved_step = held_out.save_chosen(partial / "model")
    barrier()
    transforms = trainer.transforms
    left = {} if transforms is None else transforms.finish(partial)
    if not is_main():
        return {}
    _remove_leftovers(partial)
    metrics = read_metrics(partial / METRICS_FILE)
    projection = None if transforms is None else transforms.get("projection")
    layers = projection.layer_rows if projection is not None else ()
    if layers:
        layers.write(partial / LAYERS_FILE)
    (partial / PLOTS_FOLDER).mkdir(exist_ok=True)
    _draw(partial / PLOTS_FOLDER, metrics, layers)
    (partial / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    last = {key: value for line in metrics for key, value in line.items() if isinstance(value, int | float)}
    kept = (
        "step",
        "loss",
        "mean_token_accuracy",
        "rewards/accuracies",
        "rewards/margins",
        "projection/removed",
        "projection/removed_random",
        "train_runtime",
        "train_tokens",
        "train_tokens_per_second",
        "train_tokens_per_second_per_rank",
        "train_mfu",
    )
    final: dict[str, Any] = {key: last[key] for key in kept if key in last}
    if held_out is not None:
        final |= {key: value for key, value in last.items() if key.startswith("eval_")}
        final |= held_out.summary() | {"model_of_step": saved_step}
    final |= {key: value for key, value in last.items() if key.startswith(_BY_NAME)}
    final |= left
    if config.preset is not None:
        final |= {"preset": {"name": config.preset, **config.from_preset()}}
    if trainer.progress_samples is not None:
        final |= trainer.progress_samples.summary()
    if len(trainer.shares) > 1:
        final["data_per_epoch"] = {path: asdict(share) for path, share in trainer.shares.items()}
    if trainer.left_out:
        final["left_out"] = dict(trainer.left_out)
    losses = losses_of(metrics, trainer.step_losses)
    final["learned"] = learned(losses, _moved(source, partial / "model"))
    found = remarks(config, metrics, losses, adapters=_trains_adapters(trainer))
    if found:
        final["remarks"] = found
    (partial / "model" / "README.md").write_text(model_card(config, method, inputs, final), encoding="utf-8")
    return final


def _moved(source: ModelSource, model: Path) -> float | None:
    """How far the weights have moved; None where that cannot be told, which is no reason to lose a run."""
    try:
        return relative_change(source, model)
    except OgpsaError as error:
        logger.debug("how far the weights have moved is not known: %s", error)
        return None


def _draw(folder: Path, metrics: Sequence[dict[str, Any]], layers: Sequence[tuple[int, str, float]]) -> None:
    try:
        # Nobody waits for matplotlib before the first step.
        from pipelines.training.plots import draw_plots

        draw_plots(folder, metrics, layers)
    except Exception as error:  # noqa: BLE001 - plots can be drawn again from the metrics, and a run cannot be had again
        logger.warning("the plots could not be drawn: %s: %s", type(error).__name__, first_line(error))


def _trains_adapters(trainer: Any) -> bool:
    return getattr(trainer.accelerator.unwrap_model(trainer.model), "peft_config", None) is not None


def _remove_leftovers(partial: Path) -> None:
    """Remove what the trainer leaves behind: pickled arguments, the best weights set aside, an empty work directory."""
    (partial / "model" / "training_args.bin").unlink(missing_ok=True)
    shutil.rmtree(partial / BEST_FOLDER, ignore_errors=True)
    work = partial / WORK_FOLDER
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()
