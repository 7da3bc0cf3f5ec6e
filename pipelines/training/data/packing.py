"""Packing: several rows in one sequence, without seeing each other.

TRL packs with best-fit decreasing: rows stay whole, and positions start anew with each. Without FlashAttention it is
transformers' attention mask that keeps rows apart: where positions start anew and no padding mask is given, it is
block-diagonal, for ``sdpa``, ``eager`` and ``flex_attention`` alike. A model whose layers do not go by that mask
(recurrent ones, say) would mix rows without a word, so the model itself is asked before the first step.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data_registry.core.errors import ConfigError
from pipelines.configs.train import TrainSftConfig
from pipelines.engine.untraced import modes_and_rng_kept

logger = logging.getLogger(__name__)

_PIECE = 48
_TOLERANCE = 1e-3


def packing_values(config: TrainSftConfig) -> dict[str, Any]:
    """TRL's options for packing. Not "wrapped", which cuts rows and lets the pieces see each other."""
    return {"packing": True, "packing_strategy": "bfd", "max_length": config.longest}


def num_sequences(dataset: Any, max_length: int) -> int:
    """The number of sequences into which the tokenised rows of ``dataset`` are packed."""
    from trl import pack_dataset

    return len(pack_dataset(dataset, max_length, "bfd", map_kwargs={"desc": "packing"}))


class PackingTest(TrainerCallback):
    """Tests before the first step whether the first row of a packed sequence influences the row after it.

    Args:
        trainer: TRL's SFT trainer with packed data.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        _mention_cost(self._trainer.model, args)
        rows = _two_rows(self._trainer.train_dataset)
        if rows is not None:
            check_isolation(self._trainer, *rows)


def _mention_cost(model: Any, args: TrainingArguments) -> None:
    attention = str(getattr(model.config, "_attn_implementation", None))
    size = args.per_device_train_batch_size
    if size > 1 and "flash" not in attention:
        logger.warning(
            "--packing joins the %d sequences of a batch, and attention '%s' computes over all pairs of their tokens: "
            "--batch-size 1 with %d times the --accumulation is the same step for less work",
            size, attention, size,
        )  # fmt: skip


def check_isolation(trainer: Any, first: Sequence[int], second: Sequence[int]) -> None:
    """Compare the second row's log-probabilities under two different first rows. Collective.

    The difference is judged against the one that arises when both rows are a single sequence, so that the test fits any
    model and arithmetic.

    Args:
        trainer: the trainer whose collator and model are used; its model is left as it was.
        first: the token ids of the first row.
        second: the token ids of the second row.

    Raises:
        ConfigError: the second row depends on the first.
    """
    other = _another(first, second)
    model, bare = trainer.model_wrapped, trainer.accelerator.unwrap_model(trainer.model)

    def log_probs(before: Sequence[int], *, packed: bool) -> Tensor:
        ids = [*before, *second]
        lengths = [len(before), len(second)] if packed else [len(ids)]
        batch = trainer.data_collator([{"input_ids": ids, "labels": ids, "seq_lengths": lengths}])
        placed = {
            key: value.to(trainer.args.device) if isinstance(value, Tensor) else value for key, value in batch.items()
        }
        with torch.no_grad(), trainer.compute_loss_context_manager():
            values: Tensor = model(**placed, use_cache=False, fused_lm_head=True).log_probs
        # The first token of a row has no token before it, and hence no log-probability.
        return values[0, -(len(second) - 1) :].float()

    with modes_and_rng_kept(bare, training=False):
        leak, whole = (
            float((log_probs(first, packed=packed) - log_probs(other, packed=packed)).abs().max())
            for packed in (True, False)
        )
    if leak > _TOLERANCE * whole:
        raise ConfigError(
            f"--packing: rows that are packed together see each other in {type(bare).__name__}"
            f" (log-probabilities move by {leak:.2g}; by {whole:.2g} if they are one text)",
            fix="train without --packing, or with another --attention (sdpa, flash_attention_2)",
        )


def _another(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """As many tokens as ``first`` has, but other ones."""
    other = [second[index % len(second)] for index in range(len(first))]
    return other if other != list(first) else [second[0]] * len(first)


def _two_rows(dataset: Any) -> tuple[list[int], list[int]] | None:
    """The beginnings of two rows that are packed together; None where no rows are."""
    for lengths, ids in zip(dataset["seq_lengths"], dataset["input_ids"], strict=True):
        if len(lengths) > 1 and lengths[0] > 1 and lengths[1] > 1:
            start = lengths[0]
            return list(ids[: min(start, _PIECE)]), list(ids[start : start + min(lengths[1], _PIECE)])
    return None
