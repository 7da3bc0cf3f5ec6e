"""The one extension of TRL's trainers for the commands: transforms, every row once, losses beside, our checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import TrainerState

from data_registry.core.errors import NumericsError, Preempted
from pipelines.core.job import is_main
from pipelines.engine.shards.access import whole_numel
from pipelines.training.beside import Beside
from pipelines.training.checkpoints.callback import CheckpointCallback
from pipelines.training.checkpoints.checkpointer import Checkpointer
from pipelines.training.data.mixing import Share
from pipelines.training.data.sources import SOURCES, SourcesCollator, SourceTokens
from pipelines.training.every_row import EveryRowOnce
from pipelines.training.generation_config import KeptGenerationConfig
from pipelines.training.progress_samples import ProgressSamples
from pipelines.training.remarks import FEW_LOGGED
from pipelines.training.selection import HeldOutCallback
from pipelines.training.stepping import StepsTransforms
from pipelines.training.throughput import Throughput, over_all_ranks


class TransformMixin(StepsTransforms, EveryRowOnce):
    """The mixin, to be put before a TRL trainer class: ``class Trainer(TransformMixin, SFTTrainer)``.

    Attributes:
        held_out: the callback that measures the held-out loss; None where none is measured.
        is_under_way: whether a forward and backward pass of this process is done.
        kept_generation: the model's own generation options, where transformers would not save them.
        checkpointer: writes checkpoints and resumes from them; None without checkpoints.
        shares: what each data set gives to an epoch, by its path.
        left_out: how many rows were left out, by the name of their data set.
        step_losses: the training loss of this process in each step of the run, by the step's number from 0; None before
            the first.
        beside: the losses beside that of the safety rows; None without any.
        progress_samples: asks the model as it learns; None where it is not asked.
        throughput: counts tokens; None where nobody asks how fast training is.
        source_tokens: counts tokens by the data set that they are of; None where there is only one.
    """

    held_out: HeldOutCallback | None = None
    checkpointer: Checkpointer | None = None
    beside: Beside | None = None
    progress_samples: ProgressSamples | None = None
    throughput: Throughput | None = None
    source_tokens: SourceTokens | None = None
    is_under_way: bool = False
    kept_generation: KeptGenerationConfig | None = None
    left_out: Mapping[str, int] = MappingProxyType({})
    step_losses: dict[int, float] | None = None
    shares: Mapping[str, Share] = MappingProxyType({})
    data_collator: Any

    def install_held_out(self, callback: HeldOutCallback) -> None:
        """Choose how the held-out loss is measured, before ``train()``."""
        self.held_out = callback
        self.add_callback(callback)  # type: ignore[attr-defined]

    def install_checkpoints(self, checkpointer: Checkpointer) -> None:
        """Choose how checkpoints are written, after :meth:`install_transforms` and before ``train()``."""
        self.checkpointer = checkpointer
        self.add_callback(CheckpointCallback(self, checkpointer))  # type: ignore[attr-defined]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """A forward and backward pass, and the transforms at the boundary."""
        if self.throughput is not None and self.args.torch_compile:  # type: ignore[attr-defined]
            self.throughput.count(args[1])
        return super().training_step(*args, **kwargs)

    def check_loss(self, loss: torch.Tensor) -> None:
        """Refuse a loss that is not finite.

        Raises:
            NumericsError: it is not.
        """
        if not bool(torch.isfinite(loss)):
            raise NumericsError(
                f"the training loss is {float(loss)} at step {self.state.global_step + 1}",  # type: ignore[attr-defined]
                fix="lower --learning-rate, try --precision fp32, or look at the rows with prepare-data --preview",
            )
        self._note_loss(float(loss))
        self.is_under_way = True

    def refresh_transforms(self, step: int) -> None:
        """Refresh the transforms that are due; a run that is asked to stop meanwhile ends at the step before."""
        try:
            super().refresh_transforms(step)
        except Preempted:
            # The refresh has left no trace: the weights and everything else are those of the step before.
            if self.checkpointer is None:
                raise
            self.checkpointer.stop(self)

    def end_transformed_step(self, state: TrainerState) -> None:
        """Conclude a step, and count the epoch by the rows that were used."""
        if self.throughput is not None:
            self.throughput.end_step()
        if self.source_tokens is not None:
            self.source_tokens.end_step()
        self.count_epoch(state)
        super().end_transformed_step(state)

    def kept_step_losses(self) -> list[float]:
        """The losses of all steps so far, for a checkpoint; none where the log says enough of them, as in long runs."""
        state: TrainerState = self.state  # type: ignore[attr-defined]
        if sum("loss" in line for line in state.log_history) >= FEW_LOGGED:
            return []
        losses = self.step_losses or {}
        return [losses[step] for step in sorted(losses)] if 0 in losses else []

    def _note_loss(self, loss: float) -> None:
        # The loss of a forward pass is divided by their number already, so that those of a step add up to its loss.
        step = int(self.state.global_step)  # type: ignore[attr-defined]
        if self.step_losses is None:
            self.step_losses = {}
        self.step_losses[step] = self.step_losses.get(step, 0.0) + loss

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
        if self.source_tokens is not None:
            self.source_tokens.begin_step(batches, self._anchor_tokens(self.source_tokens) if is_main() else {})
        if self.beside is not None:
            self.beside.begin_step(batches, device)
        return batches, num_items

    def _anchor_tokens(self, counter: SourceTokens) -> dict[int, int]:
        tokens = [] if self.beside is None else self.beside.anchor_tokens(int(self.state.global_step))  # type: ignore[attr-defined]
        return dict(enumerate(tokens, start=len(counter.names) - len(tokens)))

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        self._signature_columns = [*dict.fromkeys([*self._signature_columns, SOURCES])]  # type: ignore[has-type]

    def get_train_dataloader(self) -> Any:
        """The trainer's loader, whose batches say which data sets their tokens are of."""
        if self.source_tokens is not None:
            self.data_collator = SourcesCollator(self.data_collator, len(self.source_tokens.names))
        return super().get_train_dataloader()

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The trainer's log with the transforms' figures and the speed; the final figures cover the whole run."""
        if self.throughput is not None and "loss" in logs:
            logs |= self.throughput.recent()
        if self.source_tokens is not None and "loss" in logs:
            logs |= self.source_tokens.figures(over_all_ranks)
        if self.throughput is not None and "train_runtime" in logs:
            logs |= self.throughput.overall()
        if self.checkpointer is not None and "train_runtime" in logs:
            _count_earlier_time(logs, self.checkpointer.earlier_s)
        super().log(logs, *args, **kwargs)

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
