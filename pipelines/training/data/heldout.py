"""The held-out loss: measured through the engine in training, exact over all rows, leaving no trace.

It is the mean over all held-out tokens (SFT) or pairs (DPO), whatever the batches and the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
import torch.distributed as dist
from torch import Tensor

from data_registry.core.errors import ConfigError, NumericsError
from data_registry.prepared import load_prepared
from data_registry.schema import EVALUATION_SPLIT, split_share
from pipelines.configs.train import TrainConfig
from pipelines.core.job import rank, world_size
from pipelines.engine.untraced import modes_and_rng_kept
from pipelines.passes.dealing import deal
from pipelines.tokens.labels import num_trained
from pipelines.training.data.mixing import mixed_rows

Sums = Callable[[Any, Any, Mapping[str, Any]], Tensor]


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows and the sums that are measured on them.

    Attributes:
        rows: the held-out rows, tokenised as in training.
        total: the number of units that the loss is a mean over.
        names: the names of the figures as they appear in the log, the loss first.
        sums: takes the trainer, the callable for a forward pass, and a batch; returns ``[len(names)]`` sums over the
            batch's units.
        alone: whether rows are measured one by one, because a row's sums would depend on the rest of its batch.
    """

    rows: Sequence[Mapping[str, Any]]
    total: int
    names: tuple[str, ...]
    sums: Sums
    alone: bool = False


def split_held_out(config: TrainConfig, task: str) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """The prepared rows to train on, and the held-out rows to measure on.

    Raises:
        OgpsaError: a data set cannot be used, or no row is left on one side.
    """
    sets = [load_prepared(path, task=task)[0] for path in config.data]
    if config.eval_data is not None:
        held_out, _ = load_prepared(config.eval_data, task=task)
        if len(held_out) == 0:
            raise ConfigError(f"--eval-data '{config.eval_data}' has no rows")
        return mixed_rows(config, sets), held_out
    share = config.eval_split
    if share is None:
        return mixed_rows(config, sets), None
    # Each data set is split before they are mixed, so that no row is measured more often than another.
    split = [_sides(rows, share) for rows in sets]
    to_train, to_measure = ([rows.select(sides[k]) for rows, sides in zip(sets, split, strict=True)] for k in (0, 1))
    if not any(map(len, to_measure)) or not any(map(len, to_train)):
        raise ConfigError(
            f"--eval-split {share:g} of the {sum(map(len, sets))} rows in "
            f"{', '.join(repr(str(path)) for path in config.data)} leaves nothing to "
            f"{'measure on' if any(map(len, to_train)) else 'train on'}",
            fix="choose another share (rows that ask the same question stay together), or give --eval-data DATA",
        )
    return mixed_rows(config, to_train), datasets.concatenate_datasets(to_measure)


def training_sizes(config: TrainConfig, task: str) -> list[int]:
    """The number of rows of each data set that :func:`split_held_out` leaves to train on, before any is repeated."""
    sets = [load_prepared(path, task=task)[0] for path in config.data]
    if config.eval_data is not None or config.eval_split is None:
        return [len(rows) for rows in sets]
    return [len(_sides(rows, config.eval_split)[0]) for rows in sets]


def training_row_numbers(config: TrainConfig, task: str) -> list[int] | None:
    """The numbers of the rows of a single data set that :func:`split_held_out` gives to train on; None for all."""
    if config.eval_data is not None or config.eval_split is None:
        return None
    return _sides(load_prepared(config.data[0], task=task)[0], config.eval_split)[0]


def _sides(rows: datasets.Dataset, share: float) -> list[list[int]]:
    """The numbers of the rows to train on, and of those to measure on."""
    is_held_out = [split_share(row, EVALUATION_SPLIT) < share for row in rows]
    return [[index for index, out in enumerate(is_held_out) if out is side] for side in (False, True)]


def sft_held_out(rows: datasets.Dataset) -> HeldOut:
    """The mean token loss on tokenised rows (``input_ids``, ``labels``), and the share of tokens guessed right."""
    samples = rows.to_list()
    total = sum(num_trained(row["labels"]) for row in samples)

    def sums(trainer: Any, forward: Any, batch: Mapping[str, Any]) -> Tensor:
        outputs = forward(**batch, use_cache=False, fused_lm_head=True)
        return torch.stack([-outputs.log_probs.double().sum(), outputs.is_top1.double().sum()])

    return HeldOut(samples, total, ("eval_loss", "eval_mean_token_accuracy"), sums)


def dpo_held_out(pairs: Sequence[Mapping[str, Any]], *, alone: bool = False) -> HeldOut:
    """The trainer's own loss on tokenised pairs with reference log-probabilities, and how well pairs are told apart.

    Args:
        pairs: the held-out pairs.
        alone: whether to measure each pair by itself, for losses that are not a mean over the pairs of a batch.
    """

    def sums(trainer: Any, forward: Any, batch: Mapping[str, Any]) -> Tensor:
        log_probs: list[Tensor] = []

        def noting(**inputs: Any) -> Any:
            outputs = forward(**inputs)
            log_probs.append(outputs.log_probs.double().sum(1))
            return outputs

        number = len(batch["input_ids"]) // 2
        loss = trainer.compute_loss(noting, dict(batch)).double() * number
        chosen, rejected = log_probs[0].chunk(2)
        margins = trainer.beta * ((chosen - batch["ref_chosen_logps"]) - (rejected - batch["ref_rejected_logps"]))
        return torch.stack([loss, (margins > 0).double().sum(), margins.sum()])

    return HeldOut(pairs, len(pairs), ("eval_loss", "eval_rewards/accuracies", "eval_rewards/margins"), sums, alone)


def measure(trainer: Any, held_out: HeldOut) -> dict[str, float]:
    """The figures at the present weights. Collective; weights, optimizer, generators and logs are left as they were.

    Raises:
        NumericsError: the loss is not finite.
    """
    module, engine, _ = trainer.prepared_engine()
    forward = module if engine is None else engine
    device = trainer.args.device
    totals = torch.zeros(len(held_out.names), dtype=torch.float64, device=device)
    with modes_and_rng_kept(module, training=False), torch.no_grad():
        size = 1 if held_out.alone else trainer.args.per_device_train_batch_size
        # TRL gathers figures for each row, which requires the same number of rows on all ranks.
        dealt = deal(held_out.rows, size, length=_length, rank=rank(), world_size=world_size(), same_sizes=True)
        for rows, weight in dealt:
            batch = _placed(_collate(trainer, rows), device)
            totals += weight * held_out.sums(trainer, forward, batch)
        if world_size() > 1:
            dist.all_reduce(totals)
        figures = dict(zip(held_out.names, (totals / held_out.total).tolist(), strict=True))
        if not math.isfinite(figures["eval_loss"]):
            raise NumericsError(
                f"the held-out loss is {figures['eval_loss']} at step {trainer.state.global_step}",
                fix="lower --learning-rate, or try --precision fp32",
            )
        # TRL counts what its loss has seen, separately for evaluation, and would log means over batches.
        trainer._metrics["eval"].clear()
        # A log line that is due for the step itself would otherwise count as written.
        due = trainer.control.should_log
        trainer.log(dict(figures))
        trainer.control.should_log = due
    return figures


def _collate(trainer: Any, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    collator = trainer.data_collator
    if not getattr(collator, "padding_free", False):
        batch: Mapping[str, Any] = collator(list(rows))
        return batch
    # Packed training has a collator that joins rows; kept apart, they give the same loss.
    collator.padding_free = False
    try:
        batch = collator(list(rows))
    finally:
        collator.padding_free = True
    return batch


def _placed(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


def _length(row: Mapping[str, Any]) -> int:
    return len(row["input_ids"] if "input_ids" in row else row["chosen_ids"])


def held_out_plan(config: TrainConfig, rows: datasets.Dataset | None) -> list[tuple[str, str]]:
    """Lines for ``--dry-run``."""
    if rows is None:
        return []
    when = f"every {config.eval_every} steps" if config.eval_every else "ten times"
    follows = [f"stop after {config.early_stopping} without a lower one"] if config.early_stopping else []
    follows += ["the weights with the lowest are kept"] if config.select == "best" else []
    where = config.eval_data if config.eval_data is not None else ", ".join(map(str, config.data))
    return [("held out", "; ".join([f"{where}: {len(rows)} rows, loss measured {when}", *follows]))]
