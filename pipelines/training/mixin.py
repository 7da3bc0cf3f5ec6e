"""The one extension of TRL's trainers: it runs a :class:`TransformChain` at the right places of the loop.

With DeepSpeed the place is between ``engine.backward`` at the accumulation boundary and ``engine.step``, which
accelerate calls in one go; hence ``engine.step`` is wrapped on the instance. Without it, the place is after the last
backward pass and before clipping, which is the end of ``training_step``; ``on_pre_optimizer_step`` would be too late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data_registry.core.errors import NumericsError, Preempted
from pipelines.engine.shards.access import whole_numel
from pipelines.engine.shards.gradient_norm import keep_gradient_norm
from pipelines.training.beside import Beside
from pipelines.training.checkpoints.callback import CheckpointCallback
from pipelines.training.checkpoints.checkpointer import Checkpointer
from pipelines.training.data.mixing import Share
from pipelines.training.every_row import EveryRowOnce
from pipelines.training.generation_config import KeptGenerationConfig
from pipelines.training.progress_samples import ProgressSamples
from pipelines.training.selection import HeldOutCallback
from pipelines.training.throughput import Throughput
from pipelines.transforms.chain import TransformChain

ChainMaker = Callable[[Any, Any, torch.optim.Optimizer], TransformChain]


class TransformMixin(EveryRowOnce):
    """The mixin, to be put before a TRL trainer class: ``class Trainer(TransformMixin, SFTTrainer)``.

    Attributes:
        make_chain: called when training begins with the bare model, its DeepSpeed engine (or None) and the torch
            optimizer; None for plain training, which is then exactly the trainer's own.
        transforms: the chain that runs; None without transforms.
        held_out: the callback that measures the held-out loss; None where none is measured.
        is_under_way: whether a forward and backward pass of this process is done.
        kept_generation: the model's own generation options, where transformers would not save them.
        checkpointer: writes checkpoints and resumes from them; None without checkpoints.
        shares: what each data set gives to an epoch, by its path.
        left_out: how many rows were left out, by the name of their data set.
        beside: the losses beside that of the safety rows; None without any.
        progress_samples: asks the model as it learns; None where it is not asked.
        throughput: counts tokens; None where nobody asks how fast training is.
    """

    make_chain: ChainMaker | None = None
    transforms: TransformChain | None = None
    held_out: HeldOutCallback | None = None
    checkpointer: Checkpointer | None = None
    beside: Beside | None = None
    progress_samples: ProgressSamples | None = None
    throughput: Throughput | None = None
    is_under_way: bool = False
    kept_generation: KeptGenerationConfig | None = None
    left_out: Mapping[str, int] = MappingProxyType({})
    shares: Mapping[str, Share] = MappingProxyType({})

    def install_transforms(self, make_chain: ChainMaker | None) -> None:
        """Choose the transforms, before ``train()``."""
        self.make_chain = make_chain
        self.add_callback(_TransformCallback(self))  # type: ignore[attr-defined]

    def install_held_out(self, callback: HeldOutCallback) -> None:
        """Choose how the held-out loss is measured, before ``train()``."""
        self.held_out = callback
        self.add_callback(callback)  # type: ignore[attr-defined]

    def install_checkpoints(self, checkpointer: Checkpointer) -> None:
        """Choose how checkpoints are written, after :meth:`install_transforms` and before ``train()``."""
        self.checkpointer = checkpointer
        self.add_callback(CheckpointCallback(self, checkpointer))  # type: ignore[attr-defined]

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

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The trainer's forward and backward pass; then, without DeepSpeed, the transforms at the boundary."""
        if self.throughput is not None and self.args.torch_compile:  # type: ignore[attr-defined]
            self.throughput.count(args[1])
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if not bool(torch.isfinite(loss)):
            raise NumericsError(
                f"the training loss is {float(loss)} at step {self.state.global_step + 1}",  # type: ignore[attr-defined]
                fix="lower --learning-rate, try --precision fp32, or look at the rows with prepare-data --preview",
            )
        self.is_under_way = True
        accelerator = self.accelerator  # type: ignore[attr-defined]
        if self.transforms is not None and not self.is_deepspeed_enabled and accelerator.sync_gradients:  # type: ignore[attr-defined]
            self._at_boundary(self.transforms)
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The trainer's loss, and in training those beside it."""
        num_batches = int(getattr(self, "current_gradient_accumulation_steps", 1))

        def own() -> tuple[Any, bool]:
            loss = super(TransformMixin, self).compute_loss(model, inputs, return_outputs, num_items_in_batch)
            counts_items = self.model_accepts_loss_kwargs and num_items_in_batch is not None  # type: ignore[attr-defined]
            scaled = self.loss_is_scaled_for_ga  # type: ignore[attr-defined]
            return loss, bool(counts_items if scaled is None else scaled)

        if self.beside is None or return_outputs or not self.model.training:  # type: ignore[attr-defined]
            return own()[0]
        step = self.state.global_step  # type: ignore[attr-defined]
        loss, figures = self.beside.add(
            own, model, inputs, step=step, num_batches=num_batches, measured=self._is_logged()
        )
        for name, value in figures.items():
            self._metrics["train"][name].append(value)  # type: ignore[attr-defined]
        return loss

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of a step, which the losses beside the trainer's take note of."""
        if self.throughput is not None:
            self.throughput.begin_step()
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.beside is not None:
            self.beside.begin_step(batches, device)
        return batches, num_items

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
        if self.throughput is not None and "loss" in logs:
            logs |= self.throughput.recent()
        if self.throughput is not None and "train_runtime" in logs:
            logs |= self.throughput.overall()
        if self.checkpointer is not None and "train_runtime" in logs:
            _count_earlier_time(logs, self.checkpointer.earlier_s)
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """The trainer's count, but of whole parameters: under ZeRO 3 it sees only those that happen to be gathered."""
        model = self.model  # type: ignore[attr-defined]
        embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
        counted = sum(whole_numel(parameter) for parameter in model.parameters() if id(parameter) not in embeddings)
        return 6 * int(inputs["input_ids"].numel()) * counted

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The trainer's saving, after which generation options that transformers would not save are put back."""
        super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        if self.kept_generation is not None and self.args.should_save:  # type: ignore[attr-defined]
            bare = self.accelerator.unwrap_model(self.model)  # type: ignore[attr-defined]
            target = self.args.output_dir if output_dir is None else output_dir  # type: ignore[attr-defined]
            self.kept_generation.write(Path(target), bare.generation_config)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save the model; weights that are tied are one tensor in its file, whatever the engine."""
        if state_dict is not None:
            _tie(state_dict, self.accelerator.unwrap_model(self.model))  # type: ignore[attr-defined]
        super()._save(output_dir, state_dict)  # type: ignore[misc]

    # --- Checkpoints: ours replace the trainer's, which are pickled and leave out half of a run's state ---

    def _prepare_for_training(self, max_steps: int, loader: Any, resume_from_checkpoint: str | None) -> Any:
        prepared = super()._prepare_for_training(max_steps, loader, None)  # type: ignore[misc]
        if resume_from_checkpoint is not None:
            assert self.checkpointer is not None
            self.checkpointer.load_engine(self)
        return prepared

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: weights are restored together with the optimizer's state, once the engine is ready."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self.checkpointer is not None
            self.checkpointer.load_random_state(self)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        assert self.checkpointer is not None
        self.checkpointer.save(self)


def _tie(state_dict: dict[str, torch.Tensor], model: torch.nn.Module) -> None:
    """Let tied weights share a tensor again, of which accelerate has made copies: they would be saved twice."""
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        source = first.setdefault(id(parameter), name)
        if source != name and source in state_dict and name in state_dict:
            state_dict[name] = state_dict[source]


def _count_earlier_time(logs: dict[str, float], earlier_s: float) -> None:
    """Make the final figures cover the whole run, not only the part since it was resumed."""
    now_s = logs["train_runtime"]
    logs["train_runtime"] = now_s + earlier_s
    for key in logs:
        if key in ("train_samples_per_second", "train_steps_per_second"):
            # The rate was computed from all samples or steps, but only from the time since the run was resumed.
            logs[key] *= now_s / (now_s + earlier_s)


class _TransformCallback(TrainerCallback):
    """Tells the mixin where the loop is."""

    def __init__(self, trainer: TransformMixin) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.open_transforms()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        transforms = self._trainer.transforms
        if transforms is not None and transforms.refresh_due(state.global_step):
            try:
                transforms.refresh(state.global_step)
            except Preempted:
                # The refresh has left no trace: the weights and everything else are those of the step before.
                if self._trainer.checkpointer is None:
                    raise
                self._trainer.checkpointer.stop(self._trainer)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._trainer.throughput is not None:
            self._trainer.throughput.end_step()
        self._trainer.count_epoch(state)
        if self._trainer.transforms is not None:
            self._trainer.transforms.end_step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.close_transforms()
