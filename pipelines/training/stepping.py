"""A trainer of transformers that runs a :class:`TransformChain` at the right places of its loop, and is else its own.

With DeepSpeed the place is between ``engine.backward`` at the accumulation boundary and ``engine.step``, which
accelerate calls in one go; hence ``engine.step`` is wrapped on the instance. Without it, the place is after the last
backward pass and before clipping, which is the end of ``training_step``; ``on_pre_optimizer_step`` would be too late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipelines.engine.shards.gradient_norm import keep_gradient_norm
from pipelines.transforms.chain import TransformChain

ChainMaker = Callable[[Any, Any, torch.optim.Optimizer], TransformChain]


class StepsTransforms:
    """The mixin, to be put before a class of transformers' or TRL's trainers.

    Attributes:
        make_chain: called when training begins with the bare model, its DeepSpeed engine (or None) and the torch
            optimizer; None for plain training, which is then exactly the trainer's own.
        transforms: the chain that runs; None without transforms.
    """

    make_chain: ChainMaker | None = None
    transforms: TransformChain | None = None

    def install_transforms(self, make_chain: ChainMaker | None) -> None:
        """Choose the transforms, before ``train()``."""
        self.make_chain = make_chain
        self.add_callback(_StepCallback(self))  # type: ignore[attr-defined]

    def prepared_engine(self) -> tuple[Any, Any, torch.optim.Optimizer]:
        """The bare model, its DeepSpeed engine (or None) and the torch optimizer, once training has prepared them."""
        wrapper = getattr(self.accelerator, "deepspeed_engine_wrapped", None)  # type: ignore[attr-defined]
        if wrapper is not None:
            return wrapper.engine.module, wrapper.engine, wrapper.engine.basic_optimizer
        optimizer = self.optimizer  # type: ignore[attr-defined]
        bare = self.accelerator.unwrap_model(self.model)  # type: ignore[attr-defined]
        return bare, None, getattr(optimizer, "optimizer", optimizer)

    def open_transforms(self) -> None:
        """Open the transforms on the prepared engine and optimizer."""
        model, engine, optimizer = self.prepared_engine()
        if self.make_chain is not None:
            self.transforms = self.make_chain(model, engine, optimizer)
        if engine is not None:
            self._wrap_step(engine, self.transforms)

    def _wrap_step(self, engine: Any, transforms: TransformChain | None) -> None:
        step = engine.step

        def transformed_step(*args: Any, **kwargs: Any) -> Any:
            if engine.is_gradient_accumulation_boundary():
                if transforms is not None:
                    self._at_boundary(transforms)
                keep_gradient_norm(engine)
            return step(*args, **kwargs)

        engine.step = transformed_step

    def close_transforms(self) -> None:
        """Remove the transforms from the optimizer."""
        if self.transforms is not None:
            self.transforms.close()

    def refresh_transforms(self, step: int) -> None:
        """Refresh the transforms that are due before optimizer step ``step``."""
        if self.transforms is not None and self.transforms.refresh_due(step):
            self.transforms.refresh(step)

    def end_transformed_step(self, state: TrainerState) -> None:
        """Conclude a step of the transforms."""
        if self.transforms is not None:
            self.transforms.end_step()

    def check_loss(self, loss: torch.Tensor) -> None:
        """Look at the loss of a forward and backward pass, before the transforms act on its gradient."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The trainer's forward and backward pass; then, without DeepSpeed, the transforms at the boundary."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.check_loss(loss)
        accelerator = self.accelerator  # type: ignore[attr-defined]
        if self.transforms is not None and not self.is_deepspeed_enabled and accelerator.sync_gradients:  # type: ignore[attr-defined]
            self._at_boundary(self.transforms)
        return loss

    def _at_boundary(self, transforms: TransformChain) -> None:
        transforms.at_boundary(measured=self._is_logged())

    def _is_logged(self) -> bool:
        """Whether the step that is under way will be logged."""
        state: TrainerState = self.state  # type: ignore[attr-defined]
        number = state.global_step + 1
        by_steps = self.args.logging_strategy == "steps"  # type: ignore[attr-defined]
        return not by_steps or number in (1, state.max_steps) or number % max(1, int(state.logging_steps)) == 0

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The trainer's log with the transforms' figures beside the loss, under their names."""
        if self.transforms is not None and "loss" in logs:
            logs |= self.transforms.figures()
        super().log(logs, *args, **kwargs)  # type: ignore[misc]


class _StepCallback(TrainerCallback):
    """Tells the mixin where the loop is."""

    def __init__(self, trainer: StepsTransforms) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.open_transforms()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.refresh_transforms(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._trainer.end_transformed_step(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.close_transforms()
