"""The directory of a run that is being made: it stays when the run is stopped, and the same command resumes it."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_registry.core.errors import ConfigError
from data_registry.core.manifest import InputRecord
from pipelines.configs.train import TrainConfig
from pipelines.core.aside import all_aside
from pipelines.core.job import is_main, world_size
from pipelines.core.place import place_of
from pipelines.training.checkpoints import storage
from pipelines.training.checkpoints.checkpointer import Checkpointer
from pipelines.training.checkpoints.run_files import BEST_FOLDER, GROWING_FILES
from pipelines.training.checkpoints.storage import CheckpointManifest, RunRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Beginning:
    """How a run begins.

    Attributes:
        config: the options, with the accumulation that gives the run's batch on the present number of ranks.
        run: the record of the run that its checkpoints belong to.
        source: the checkpoint to resume from; None for a new run.
    """

    config: TrainConfig
    run: RunRecord
    source: Path | None

    @property
    def resume_from(self) -> str | None:
        """The checkpoint in the form in which the trainer takes it."""
        return None if self.source is None else str(self.source)

    def checkpointer(self, partial: Path) -> Checkpointer:
        """The object that writes and reads the checkpoints of the run in ``partial``."""
        config = self.config
        return Checkpointer(partial, self.run, every=config.save_every, keep=config.keep, source=self.source)


@contextlib.contextmanager
def kept_from_first_checkpoint(partial: Path) -> Iterator[None]:
    """If the run that is made in ``partial`` ends early, keep its files only if there is a checkpoint.

    The files that are kept let the same command resume the run.
    """
    try:
        yield
    except BaseException:
        if is_main() and not storage.has_checkpoint(partial):
            _clear(partial)
        raise


def begin(config: TrainConfig, inputs: Sequence[InputRecord], partial: Path) -> Beginning:
    """Find out how the run begins, and clean the directory accordingly; rank zero's work.

    Raises:
        ArtifactError: an unfinished run of other inputs lies there.
        ConfigError: the run cannot be resumed with this number of processes.
    """
    _mention_others(config, partial)
    samples = config.batch_size * config.accumulation * world_size()
    run = RunRecord(identity=config.identity_hash(), inputs=list(inputs), samples_per_step=samples)
    had = storage.has_checkpoint(partial)
    found = storage.newest_checkpoint(partial, run) if config.resume else None
    if found is None:
        if had:
            why = "no checkpoint can be used" if config.resume else "the unfinished run is given up (--no-resume)"
            logger.warning("%s: starting over", why)
        _clear(partial)
        return Beginning(config, run, None)
    path, manifest = found
    config = _with_same_batch(config, manifest)
    _clear(partial, but=(storage.FOLDER, BEST_FOLDER))
    for name in GROWING_FILES:
        if (path / name).exists():
            shutil.copyfile(path / name, partial / name)
    logger.info("going on from step %d (written %s)", manifest.step, manifest.written)
    return Beginning(config, run.model_copy(update={"samples_per_step": manifest.run.samples_per_step}), path)


def _with_same_batch(config: TrainConfig, manifest: CheckpointManifest) -> TrainConfig:
    """The options, with forward passes per step such that batch size, schedule and data position stay the same."""
    one_pass, wanted = config.batch_size * world_size(), manifest.run.samples_per_step
    if wanted % one_pass:
        raise ConfigError(
            f"the unfinished run takes {wanted} samples a step; {world_size()} processes with --batch-size "
            f"{config.batch_size} cannot share them evenly",
            fix=f"use as many processes as before ({manifest.world_size}), or another number that divides "
            f"{wanted // config.batch_size}; --no-resume starts over",
        )
    accumulation = wanted // one_pass
    if accumulation != config.accumulation:
        logger.info(
            "%d processes wrote the checkpoint, %d go on: --accumulation %d keeps the batch of %d samples",
            manifest.world_size, world_size(), accumulation, wanted,
        )  # fmt: skip
    return config.model_copy(update={"accumulation": accumulation})


def _mention_others(config: TrainConfig, partial: Path) -> None:
    for other in all_aside(place_of(config.out), "partial"):
        if other != partial and storage.has_checkpoint(other):
            logger.info("an unfinished run of other options lies in %s; it is left alone", other)


def _clear(directory: Path, *, but: Sequence[str] = ()) -> None:
    for path in directory.iterdir():
        if path.name in but:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
