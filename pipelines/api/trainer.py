"""Trainers of transformers and TRL with projection, and with their own checkpoints."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from transformers import Trainer

from data_registry.core.errors import ArtifactError, EngineError, InputError
from pipelines.api.basis import Basis
from pipelines.api.options import ProjectionOptions, Refresh, as_basis, make_projection
from pipelines.engine.shards.opening import open_shards
from pipelines.training.checkpoints.engine_state import read_tensors, write_kept
from pipelines.training.stepping import StepsTransforms
from pipelines.transforms.chain import TransformChain

TrainerT = TypeVar("TrainerT", bound=Trainer)

_FOLDER = "projection"
"""Where a checkpoint of the trainer keeps the projection's state."""
_STATE_FILE = "state.json"


class ProjectedTrainer(StepsTransforms):
    """What :func:`projected` puts before a trainer's class.

    Args:
        args: the arguments of the trainer's class.
        basis: the basis; None trains without projection, exactly as the trainer's own class does.
        space: as for :class:`pipelines.ProjectedOptimizer`, and so are the others.
        scope: likewise.
        strength: likewise.
        momentum: likewise.
        refresh: likewise.
        refresh_every: likewise.
        max_drift: likewise.
        refresh_at_start: likewise.
        kwargs: the arguments of the trainer's class.
    """

    _restored_from: str | None = None

    def __init__(
        self,
        *args: Any,
        basis: Basis | str | Path | None,
        space: Literal["gradient", "update"] = "gradient",
        scope: Literal["tensor", "layer", "global"] = "tensor",
        strength: float = 1.0,
        momentum: Literal["keep", "reproject"] = "keep",
        refresh: Refresh | None = None,
        refresh_every: int | Literal["auto"] = 30,
        max_drift: float = 20.0,
        refresh_at_start: bool | None = None,
        **kwargs: Any,
    ) -> None:
        options = ProjectionOptions(
            space, scope, strength, momentum, refresh, refresh_every, max_drift, refresh_at_start
        )
        found = None if basis is None else as_basis(basis)
        super().__init__(*args, **kwargs)
        if found is not None:
            _refuse_unservable(self)
            self.install_transforms(functools.partial(_make_chain, found, options))

    # --- The trainer's own checkpoints, with the projection's state beside the optimizer's ---

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
        if self.transforms is None:
            return
        folder = Path(output_dir, _FOLDER)
        os.makedirs(folder, exist_ok=True)
        rank = self.args.process_index  # type: ignore[attr-defined]
        write_kept(folder, self.transforms.access, self.transforms.tensors(), rank)
        if rank == 0:
            (folder / _STATE_FILE).write_text(json.dumps(self.transforms.state()), encoding="utf-8")

    def _prepare_for_training(self, max_steps: int, loader: Any, resume_from_checkpoint: str | None) -> Any:
        self._restored_from = resume_from_checkpoint
        return super()._prepare_for_training(max_steps, loader, resume_from_checkpoint)  # type: ignore[misc]

    def open_transforms(self) -> None:
        """Open the transforms, as they were when the checkpoint was written that training goes on from.

        Raises:
            BasisMismatchError: the basis was built for other parameters.
            ArtifactError: the checkpoint has no state of a projection.
        """
        self.close_transforms()
        super().open_transforms()
        if self._restored_from is None or self.transforms is None:
            return
        folder = Path(self._restored_from, _FOLDER)
        try:
            state = json.loads((folder / _STATE_FILE).read_text(encoding="utf-8"))
            self.transforms.restore(state, read_tensors(folder, self.transforms.access))
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(
                f"the checkpoint '{self._restored_from}' has no state of a projection that fits this run",
                where=str(folder),
                fix="go on from a checkpoint that a projected trainer of this model and basis wrote",
            ) from error


def _make_chain(
    basis: Basis, options: ProjectionOptions, model: Any, engine: Any, optimizer: torch.optim.Optimizer
) -> TransformChain:
    access = open_shards(model, engine)
    return TransformChain(access, optimizer, [make_projection(basis, options, access, optimizer)])


def projected(trainer_class: type[TrainerT]) -> Callable[..., TrainerT]:
    """A subclass of a trainer's class that projects, after accumulation and reduction and before clipping.

    ``projected(SFTTrainer)(model=..., args=..., train_dataset=..., basis=basis, space="update")`` takes the arguments
    of the class, and ``basis``, ``space``, ``scope``, ``strength``, ``momentum``, ``refresh``, ``refresh_every``,
    ``max_drift`` and ``refresh_at_start`` as :class:`pipelines.ProjectedOptimizer` has them. Data, loss, optimizer,
    schedule, logs and checkpoints are the trainer's own; figures of the projection stand beside the loss in its log,
    and ``resume_from_checkpoint`` restores the projection with the optimizer.

    Args:
        trainer_class: ``transformers.Trainer`` or a subclass, such as TRL's ``SFTTrainer`` and ``DPOTrainer``.

    Returns:
        The subclass, the same one at every call.

    Raises:
        InputError: it is no class of transformers' Trainer. The subclass itself, when it is made into an object, raises
            what :class:`pipelines.ProjectedOptimizer` raises, and :class:`EngineError` by name under what it does not
            serve: FSDP, tensor, context and sequence parallelism, DataParallel, fp16, optimizers that step during the
            backward pass, and ``auto_find_batch_size``.
    """
    if not (isinstance(trainer_class, type) and issubclass(trainer_class, Trainer)):
        raise InputError(
            f"projected() takes a class of transformers' Trainer, and this is {trainer_class!r}",
            fix="for loops of your own:  ProjectedOptimizer(optimizer, model, basis)",
        )
    if issubclass(trainer_class, StepsTransforms):
        raise InputError(f"{trainer_class.__name__} has a projection already")
    untyped: Any = trainer_class
    made: Callable[..., TrainerT] = _subclass(untyped)
    return made


@functools.cache
def _subclass(trainer_class: Any) -> Any:
    name = f"Projected{trainer_class.__name__}"
    body = {"__doc__": f"{trainer_class.__name__} with projection.", "__module__": __name__}
    return type(name, (ProjectedTrainer, trainer_class), body)


def _refuse_unservable(trainer: Any) -> None:
    args, parallel = trainer.args, getattr(trainer.accelerator, "parallelism_config", None)
    spread = ("tp_enabled", "cp_enabled", "sp_enabled", "dp_shard_enabled")
    optimizer = str(getattr(args.optim, "value", args.optim))
    reasons = {
        "FSDP": bool(trainer.is_fsdp_enabled or getattr(trainer, "is_fsdp_xla_enabled", False)),
        "models that transformers spreads over ranks when it loads them": bool(
            getattr(trainer, "is_distributed_loading_by_transformers", False)
        ),
        "tensor, context or sequence parallelism": any(getattr(parallel, name, False) for name in spread),
        "several GPUs in one process (DataParallel)": args.n_gpu > 1,
        "fp16, whose scaled gradients may overflow": bool(args.fp16),
        f"optim={optimizer}, which steps during the backward pass": "lomo" in optimizer or "layerwise" in optimizer,
        "auto_find_batch_size": bool(args.auto_find_batch_size),
    }
    for name, present in reasons.items():
        if present:
            raise EngineError(
                f"projection does not serve {name}",
                fix="use one process for each GPU (torchrun), DistributedDataParallel or DeepSpeed's ZeRO, and bf16",
            )
