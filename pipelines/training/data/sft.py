"""SFT's training data: safety rows, replay mixed in, laid out in sequences."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets

from data_registry.core.errors import ConfigError
from data_registry.prepared import load_prepared
from pipelines.configs.train import TrainSftConfig
from pipelines.tokens.fitting import Bounds, encode_fitting, encode_kept
from pipelines.training.data.heldout import held_out_plan, split_held_out, training_sizes
from pipelines.training.data.mixing import Share, data_text, sets_of_rows, shares
from pipelines.training.data.packing import num_sequences
from pipelines.training.data.plan import DataPlan
from pipelines.training.data.replay import Mixture, MixtureSampler
from pipelines.training.data.sources import source_names, with_sources
from pipelines.training.data.weighting import unweighted_rows, weighted_rows


@dataclass(frozen=True)
class SftData:
    """The data that the trainer gets.

    Attributes:
        rows: the tokenised rows; where there is a sampler, the replay rows follow the safety rows.
        sampler: chooses the rows to train on, and their order; None for the trainer's own sampler.
        held_out: the tokenised rows that the held-out loss is measured on.
        safety: the tokenised safety rows alone.
        replay: the tokenised replay rows that are mixed in, or None.
        shares: what each of the safety data sets gives to an epoch.
    """

    rows: datasets.Dataset
    sampler: MixtureSampler | None = None
    held_out: datasets.Dataset | None = None
    safety: datasets.Dataset | None = None
    replay: datasets.Dataset | None = None
    shares: Mapping[str, Share] = field(default_factory=dict)


def sft_data(config: TrainSftConfig, tokenizer: Any, bounds: Bounds) -> SftData:
    """The tokenised rows to train on and to measure on.

    Args:
        config: the command's options.
        tokenizer: the tokenizer that training uses.
        bounds: what the rows must keep to.

    Raises:
        OgpsaError: a data set or option cannot be used.
    """
    prepared, out = split_held_out(config, "sft")
    held_out = None if out is None else _encoded(out, tokenizer, bounds, "held-out rows")
    workers = tokenizing_workers(len(prepared))
    rows, kept = encode_kept(prepared, tokenizer, bounds, num_workers=workers, name="training rows")
    sizes = training_sizes(config, "sft")
    given = shares(config, sizes, kept, [len(ids) for ids in rows["input_ids"]])
    counts_sources = len(source_names(config)) > 1
    if counts_sources:
        rows = with_sources(rows, sets_of_rows(config, sizes, kept))
    is_weighted = config.token_weights is not None
    if is_weighted:
        rows = weighted_rows(config, rows)
    if config.pooled_replay is None:
        return SftData(rows, held_out=held_out, safety=rows, shares=given)
    available, _ = load_prepared(config.pooled_replay, task="sft")
    _check_replay(config, len(available))
    replay = _encoded(available, tokenizer, bounds, "replay rows")
    if counts_sources:
        replay = with_sources(replay, [len(config.data)] * len(replay))
    if is_weighted:
        replay = unweighted_rows(replay)
    mixture = _mixture(config, len(rows), len(replay))
    both = datasets.concatenate_datasets([rows, replay])
    if config.packing:
        # Rows that share a sequence cannot be drawn one by one, so every epoch has the rows of the first epoch.
        return SftData(both.select(mixture.epoch(0)), held_out=held_out, safety=rows, replay=replay, shares=given)
    return SftData(both, MixtureSampler(mixture), held_out, rows, replay, given)


def sft_data_plan(config: TrainSftConfig, tokenizer: Any, bounds: Bounds) -> DataPlan:
    """The plan of what :func:`sft_data` will make, for ``--dry-run``. Packed rows have to be tokenised for it.

    Raises:
        OgpsaError: a data set or option cannot be used.
    """
    prepared, out = split_held_out(config, "sft")
    number = len(prepared)
    lines = [("data", data_text(config, number)), *held_out_plan(config, out)]
    if config.pooled_replay is not None:
        available = len(load_prepared(config.pooled_replay, task="sft")[0])
        _check_replay(config, available)
        mixture = _mixture(config, number, available)
        number = len(mixture)
        lines.append(("replay", replay_text(config, mixture)))
    if config.packing:
        sequences = num_sequences(sft_data(config, tokenizer, bounds).rows, config.longest)
        lines.append(("packing", f"{number} rows in {sequences} sequences of at most {config.longest} tokens"))
        number = sequences
    return DataPlan(number, lines)


def replay_text(config: TrainSftConfig, mixture: Mixture) -> str:
    """The exact numbers of the mixture as one phrase."""
    return (
        f"{config.pooled_replay}: {mixture.num_replay} of {mixture.num_available} rows an epoch, "
        f"{mixture.num_replay / len(mixture):.4g} of all samples"
    )


def _check_replay(config: TrainSftConfig, num_available: int) -> None:
    if "train_sampling_strategy" in config.trainer and not config.packing:
        raise ConfigError(
            "option 'trainer.train_sampling_strategy' does not go with --replay, which decides the order of the rows",
            fix="leave one of them out",
        )
    if num_available == 0:
        raise ConfigError(f"the replay data '{config.replay}' has no rows")


def _mixture(config: TrainSftConfig, num_safety: int, num_available: int) -> Mixture:
    assert config.replay_ratio is not None, "the configuration is checked for it"
    return Mixture(num_safety, num_available, config.replay_ratio, config.order_seed)


def _encoded(rows: datasets.Dataset, tokenizer: Any, bounds: Bounds, label: str) -> datasets.Dataset:
    return encode_fitting(rows, tokenizer, bounds, num_workers=tokenizing_workers(len(rows)), name=label)


# A worker process has to import the tokenizer's library first, which takes as long as this many rows.
_ROWS_WORTH_A_WORKER = 20_000


def tokenizing_workers(num_rows: int) -> int:
    """The number of worker processes for tokenising on each rank, such that all ranks together use the machine once."""
    if num_rows < _ROWS_WORTH_A_WORKER:
        return 1
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
