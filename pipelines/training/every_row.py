"""Every row once an epoch in a trainer's loop, and a loss that is the mean over the real rows of a step alone.

Where rows do not divide over ranks and forward passes, the last forward passes of an epoch have fewer rows than the
others, and not all ranks as many. A rank without any computes on a stand-in whose loss counts nothing, since the
engines' reductions need every rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import TrainerState

from data_registry.core.errors import ConfigError
from pipelines.training.data.dealing import Dealing, LengthGroupedOrder, deal_rows, real_rows_gathered


class EveryRowOnce:
    """The mixin, to be put before a TRL trainer class.

    Attributes:
        dealing: the numbers of rows that ranks take; None before training.
    """

    dealing: Dealing | None = None
    # The numbers of rows of the ranks in the forward passes of this step, and which of those passes is being done.
    _sizes: list[list[int]] | None = None
    _pass: int | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        args: Any = self.args  # type: ignore[attr-defined]
        rows = self.train_dataset if train_dataset is None else train_dataset  # type: ignore[attr-defined]
        per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        if args.train_sampling_strategy == "group_by_length":
            seed = args.seed if args.data_seed is None else args.data_seed
            return LengthGroupedOrder([_length(row) for row in rows], per_step, seed)
        if args.train_sampling_strategy == "batch_rebalance":
            _check_rebalancing(rows, per_step, args.gradient_accumulation_steps * args.world_size)
        return super()._get_train_sampler(train_dataset)  # type: ignore[misc]

    def get_train_dataloader(self) -> Any:
        """The trainer's loader of this rank, dealing out every row once."""
        loader = super().get_train_dataloader()  # type: ignore[misc]
        accelerator = self.accelerator  # type: ignore[attr-defined]
        self.dealing = deal_rows(loader, accelerator.process_index, accelerator.num_processes)
        return loader

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The batches of a step; a rank's batch that has no rows is a stand-in."""
        dealing = self.dealing
        if dealing is None or dealing.is_even:
            return super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        passes: int = self.args.gradient_accumulation_steps  # type: ignore[attr-defined]
        step: int = self.state.global_step % math.ceil(dealing.num_passes / passes)  # type: ignore[attr-defined]
        sizes = [dealing.sizes(step * passes + index) for index in range(num_batches)]
        self._sizes, self._pass = sizes, -1
        rank: int = self.accelerator.process_index  # type: ignore[attr-defined]

        def real_or_stand_in() -> Iterator[Any]:
            for ranks in sizes:
                batch = next(epoch_iterator)
                yield batch if ranks[rank] else self.stand_in()

        return super().get_batch_samples(real_or_stand_in(), num_batches, device)  # type: ignore[misc]

    def stand_in(self) -> Any:
        """A batch that the model can compute on and that trains nothing, on any device."""
        row = self.train_dataset[0]  # type: ignore[attr-defined]
        return self.data_collator([stand_in_row(row)])  # type: ignore[attr-defined]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The trainer's forward and backward pass, which knows how many rows the ranks have in it."""
        if self._sizes is None or self._pass is None:
            return super().training_step(*args, **kwargs)  # type: ignore[misc]
        self._pass += 1
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if self._pass == len(self._sizes) - 1:
            self._sizes = self._pass = None
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The trainer's loss; in training, each real row of a step counts the same in it, and a stand-in not at all."""
        sizes = self._sizes
        if sizes is None or self._pass is None or not self.model.training:  # type: ignore[attr-defined]
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        ranks, rank = sizes[self._pass], self.accelerator.process_index  # type: ignore[attr-defined]
        with real_rows_gathered(self.accelerator, ranks, rank):  # type: ignore[attr-defined]
            loss = super().compute_loss(model, inputs, False, num_items_in_batch)  # type: ignore[misc]
        # With the number of tokens given, the loss is divided by those of the whole step. Otherwise it is a mean over
        # this pass's rows, and the trainer takes the mean over passes and the engine that over ranks.
        total = sum(map(sum, sizes))
        equal = total / (len(sizes) * len(ranks))
        weight = float(ranks[rank] > 0) if num_items_in_batch is not None else ranks[rank] / equal
        return loss if weight == 1.0 else loss * weight

    def count_epoch(self, state: TrainerState) -> None:
        """Let the epoch be the share of the rows that were used, whatever the number of ranks and forward passes."""
        dealing = self.dealing
        if dealing is None or state.epoch is None:
            return
        passes: int = self.args.gradient_accumulation_steps  # type: ignore[attr-defined]
        epochs, steps = divmod(state.global_step, math.ceil(dealing.num_passes / passes))
        state.epoch = epochs + steps * passes * dealing.batch_size * dealing.num_ranks / dealing.num_used


def stand_in_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of two tokens for SFT, or a pair of one-token completions for DPO, made from a row of the training data."""
    if "prompt_ids" not in row:
        ids = [row["input_ids"][0]] * 2
        weights = {"token_weights": [0.0, 0.0]} if "token_weights" in row else {}
        return {"input_ids": ids, "labels": [-100, -100], "seq_lengths": [2], **weights}
    ids = [row["prompt_ids"][0]]
    values: dict[str, Any] = {key: 0.0 for key in row if key.startswith("ref_")}
    # What there is for every token of a completion.
    values |= {key: [0.0] for key in row if key.endswith(("_token_logps", "_weights"))}
    return {"prompt_ids": ids, "chosen_ids": ids, "rejected_ids": ids, **values}


def _length(row: Mapping[str, Any]) -> int:
    if "input_ids" in row:
        return len(row["input_ids"])
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def _check_rebalancing(rows: Any, per_step: int, passes: int) -> None:
    left = len(rows) % per_step
    if 0 < left < passes:
        raise ConfigError(
            f"option 'trainer.train_sampling_strategy': batch_rebalance trains some rows twice: the last step of an "
            f"epoch has {left} rows for {passes} forward passes",
            fix="use group_by_length, or another --batch-size or --accumulation",
        )
