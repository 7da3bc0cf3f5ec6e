"""Saving a trainer and restoring it as it was: a resumed run equals a run that was never stopped, to the bit.

These checkpoints hold what the trainer's own leave out: what transforms keep (such as basis rows), sums that a
logged mean is taken over, figures that wait for the next log, the log itself.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any, NoReturn

import pyarrow.parquet as pq
import torch
from transformers import TrainerState
from transformers.trainer_callback import ExportableState

from data_registry.core.errors import ArtifactError, EngineError, Preempted
from pipelines.core.job import is_main, on_main, rank, world_size
from pipelines.engine import processes
from pipelines.engine.shards.access import ShardAccess
from pipelines.engine.shards.opening import open_shards
from pipelines.training.checkpoints import random_state, storage
from pipelines.training.checkpoints.engine_state import read_engine_state, read_tensors, write_engine_state
from pipelines.training.checkpoints.run_files import GROWING_FILES
from pipelines.training.checkpoints.storage import RunRecord

logger = logging.getLogger(__name__)

# The trainer looks for its own state under this name.
_TRAINER_FILE = "trainer_state.json"
_PROGRESS_FILE = "progress.json"
_LAYERS_FILE = "layers.parquet"
_ENGINE_COUNTERS = ("global_steps", "global_samples", "micro_steps", "skipped_steps")


class Checkpointer:
    """Writes checkpoints of a trainer while it runs, and restores a trainer from one.

    Args:
        run_directory: the directory in which the run is being made.
        run: the record of the run that its checkpoints belong to.
        every: the number of steps between checkpoints; with 0 one is written only when the run is asked to stop.
        keep: the number of checkpoints that are kept.
        source: the checkpoint that the run resumes from; None for a new run.
    """

    def __init__(self, run_directory: Path, run: RunRecord, *, every: int, keep: int, source: Path | None) -> None:
        self.run_directory, self.run, self.every, self.keep = run_directory, run, every, keep
        self.source = source
        self._access: ShardAccess | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._began = time.monotonic()
        self.earlier_s = 0.0
        self._random_at_epoch: dict[str, Any] | None = None

    # --- Where the trainer is ---

    def open(self, trainer: Any) -> bool:
        """Look at the prepared engine; returns whether its state can be saved."""
        model, engine, self._optimizer = trainer.prepared_engine()
        try:
            self._access = open_shards(model, engine)
        except EngineError as error:
            logger.warning("no checkpoints are written, a stopped run starts over: %s", error.what)
            return False
        return True

    @property
    def is_open(self) -> bool:
        """Whether checkpoints are written."""
        return self._access is not None

    def note_random_state(self) -> None:
        """Remember the generators' states at the beginning of an epoch, before its loader draws from them."""
        self._random_at_epoch = random_state.capture()

    # --- Saving ---

    def stop(self, trainer: Any) -> NoReturn:
        """Before the next step begins, save if there is anything to save, and end the run. Collective.

        Raises:
            Preempted: always.
        """
        state: TrainerState = trainer.state
        if state.global_step == 0 or not self.is_open:
            where = f"at step {state.global_step} of {state.max_steps}"
            raise Preempted(f"stopped ({processes.stop_reason()}) {where}: the same command starts over")
        if self.source is None or self.source.name != storage.name_of(state.global_step):
            # A run that resumes at the beginning of an epoch lets the epoch's loader draw again.
            self.save(trainer, self._random_at_epoch if float(state.epoch or 0).is_integer() else None)
        raise preempted(state.global_step, state.max_steps)

    def save(self, trainer: Any, random: dict[str, Any] | None = None) -> None:
        """Write a checkpoint of the step that has just been done. Collective.

        Args:
            trainer: the trainer, which must be between two steps.
            random: the states of this rank's generators; by default the present ones.

        Raises:
            InputError: the checkpoint cannot be written.
        """
        written = storage.write_checkpoint(
            self.run_directory,
            trainer.state.global_step,
            self.run,
            lambda directory: self._write(trainer, directory, random or random_state.capture()),
        )
        on_main(lambda: storage.keep_last(self.run_directory, self.keep))
        logger.info("%s written", written.name)

    def _write(self, trainer: Any, directory: Path, random: dict[str, Any]) -> list[Path]:
        assert self._access is not None
        assert self._optimizer is not None
        transforms = trainer.transforms
        kept = {} if transforms is None else transforms.tensors()
        files = write_engine_state(directory, self._access, self._optimizer, kept, rank())
        files.append(_dump(directory / _rank_file(rank()), {"random": random, **self._rank_state(trainer)}))
        if is_main():
            files.append(_dump(directory / _TRAINER_FILE, dataclasses.asdict(trainer.state)))
            files.append(_dump(directory / _PROGRESS_FILE, self._progress(trainer)))
            grown = [self.run_directory / name for name in GROWING_FILES]
            files += [Path(shutil.copy(path, directory)) for path in grown if path.exists()]
            projection = None if transforms is None else transforms.get("projection")
            if projection is not None and projection.layer_rows:
                projection.layer_rows.write(directory / _LAYERS_FILE)
                files.append(directory / _LAYERS_FILE)
        return files

    def _rank_state(self, trainer: Any) -> dict[str, Any]:
        return {
            "loss_sum": float(trainer._tr_loss),
            "flos": float(trainer.current_flos),
            "metrics": dict(trainer._metrics["train"]),
            "tokens": trainer._total_train_tokens,
            "source_tokens": None if trainer.source_tokens is None else trainer.source_tokens.state(),
            "throughput": None if trainer.throughput is None else trainer.throughput.state(),
        }

    def _progress(self, trainer: Any) -> dict[str, Any]:
        transforms, engine = trainer.transforms, trainer.prepared_engine()[1]
        return {
            "losses_logged": trainer._total_loss_scalar,
            "last_logged": trainer._globalstep_last_logged,
            "step_losses": trainer.kept_step_losses(),
            "scheduler": trainer.lr_scheduler.state_dict(),
            "learning_rates": [group["lr"] for group in trainer.optimizer.param_groups],
            "engine": {} if engine is None else {name: getattr(engine, name) for name in _ENGINE_COUNTERS},
            "transforms": None if transforms is None else transforms.state(),
            "callbacks": {type(callback).__name__: callback.state()["attributes"] for callback in _exportable(trainer)},
            "elapsed_s": self.earlier_s + time.monotonic() - self._began,
        }

    # --- Going on ---

    def load_engine(self, trainer: Any) -> None:
        """Restore weights, optimizer and schedule, once the engine is ready. Collective.

        Raises:
            ArtifactError: the checkpoint belongs to another model.
        """
        assert self.source is not None
        if not self.is_open and not self.open(trainer):
            raise ArtifactError(
                "the engine cannot take a checkpoint back", where=str(self.source), fix="--no-resume starts over"
            )
        assert self._access is not None
        assert self._optimizer is not None
        try:
            read_engine_state(self.source, self._access, self._optimizer)
        except (KeyError, RuntimeError) as error:
            raise ArtifactError(
                f"the checkpoint does not fit the model: {error}", where=str(self.source), fix="--no-resume starts over"
            ) from error
        progress = self._read(_PROGRESS_FILE)
        trainer.lr_scheduler.load_state_dict(progress["scheduler"])
        for group, learning_rate in zip(trainer.optimizer.param_groups, progress["learning_rates"], strict=True):
            group["lr"] = learning_rate
        engine = trainer.prepared_engine()[1]
        for name, value in progress["engine"].items():
            setattr(engine, name, value)

    def load_random_state(self, trainer: Any) -> None:
        """Restore this rank's generators; the trainer calls it once it has skipped the batches already done."""
        assert self.source is not None
        if len(list(self.source.glob("rank-*.json"))) != world_size():
            # With another number of ranks, no rank can continue as one of the former ranks.
            random_state.reseed(trainer.args.seed, trainer.state.global_step, rank())
            return
        random_state.restore(self._read(_rank_file(rank()))["random"])

    def load_progress(self, trainer: Any) -> None:
        """Restore the state of log and transforms; called when training begins, after the transforms are open."""
        assert self.source is not None
        progress = self._read(_PROGRESS_FILE)
        parts = [self._read(path.name) for path in sorted(self.source.glob("rank-*.json"))]
        same_ranks = len(parts) == world_size()
        # Sums that each rank keeps are averaged over ranks when logged; with another number of ranks all take the mean.
        mine = parts[rank()] if same_ranks else _merged(parts)
        trainer._tr_loss = torch.tensor(mine["loss_sum"], device=trainer.args.device)
        trainer.current_flos = mine["flos"]
        trainer._metrics["train"].update(mine["metrics"])
        trainer._total_train_tokens = mine["tokens"]
        if trainer.throughput is not None:
            states = [part["throughput"] for part in parts if part.get("throughput") is not None]
            trainer.throughput.restore(states, rank() if same_ranks else None)
        if trainer.source_tokens is not None:
            counted = [part["source_tokens"] for part in parts if part.get("source_tokens") is not None]
            trainer.source_tokens.restore(counted, rank() if same_ranks else None, world_size())
        trainer._total_loss_scalar = progress["losses_logged"]
        trainer._globalstep_last_logged = progress["last_logged"]
        trainer.step_losses = dict(enumerate(progress.get("step_losses", [])))
        trainer._initial_global_step = 0
        trainer._initial_num_input_tokens_seen = 0
        self.earlier_s = progress["elapsed_s"]
        for callback in _exportable(trainer):
            for name, value in progress["callbacks"].get(type(callback).__name__, {}).items():
                setattr(callback, name, value)
        transforms = trainer.transforms
        if transforms is not None:
            transforms.restore(progress["transforms"], read_tensors(self.source, transforms.access))
            projection = transforms.get("projection")
            if projection is not None and self._has(_LAYERS_FILE):
                layers = pq.read_table(self.source / _LAYERS_FILE, columns=["step", "removed"]).to_pydict()
                projection.layer_rows.restore(layers["step"], layers["removed"])

    def _read(self, name: str) -> dict[str, Any]:
        assert self.source is not None
        values: dict[str, Any] = json.loads((self.source / name).read_text(encoding="utf-8"))
        return values

    def _has(self, name: str) -> bool:
        assert self.source is not None
        return (self.source / name).exists()


def preempted(step: int, max_steps: int) -> Preempted:
    """The exception that ends a run once its checkpoint is written."""
    where = f"at step {step} of {max_steps}"
    return Preempted(f"stopped ({processes.stop_reason()}) {where}: saved; the same command goes on from there")


def _merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One rank's part of the log state of other ranks: sums that are averaged over ranks when logged, common counts."""
    return {
        **parts[0],
        "loss_sum": sum(part["loss_sum"] for part in parts) / len(parts),
        "flos": sum(part["flos"] for part in parts) / world_size(),
    }


def _exportable(trainer: Any) -> list[Any]:
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, ExportableState)]


def _rank_file(number: int) -> str:
    return f"rank-{number:05d}.json"


def _dump(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(json.dumps(values), encoding="utf-8")
    return path
