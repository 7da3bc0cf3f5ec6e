"""Anchor rows: read from samples or prepared data, and dealt out to optimizer steps in an order of the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from data_registry.core.errors import ConfigError, InputError
from data_registry.prepared import SAMPLES, load_prepared
from pipelines.configs.train import TrainConfig
from pipelines.passes.distributions import TopLogProbs, places_of
from pipelines.sampling.storage import Sample, StoredLogProbs
from pipelines.sampling.tokens import training_tokens
from pipelines.tokens.conversations import encode_dataset
from pipelines.tokens.fitting import Bounds, check_token_ids, rows_that_fit

# The orders of safety rows and of replay rows have the numbers 0 and 1.
_ANCHOR = 2


@dataclass(frozen=True)
class AnchorRow:
    """A row in tokens, cut to the longest sequence.

    Attributes:
        ids: the token ids.
        labels: the token id where a token is counted, ``IGNORED`` elsewhere.
        start: what the starting model expected at the places before labelled tokens; None where it is not needed.
    """

    ids: list[int]
    labels: list[int]
    start: TopLogProbs | None = None

    @property
    def places(self) -> list[int]:
        """The positions whose logits predict a labelled token."""
        return places_of(self.labels)


class AnchorRows:
    """The rows of an anchor, read as they are needed.

    Args:
        config: the options of the command.
        tokenizer: the tokenizer that training uses.
        bounds: what the rows must keep to.

    Raises:
        ConfigError: ``--anchor-kind kl`` has no samples with log-probabilities, or samples of other tokens.
        InputError: the data cannot be read, have no row that is short enough, or do not fit the model.
    """

    def __init__(self, config: TrainConfig, tokenizer: Any, bounds: Bounds) -> None:
        assert config.anchor is not None
        dataset, manifest = load_prepared(config.anchor, task="sft")
        self._stored: StoredLogProbs | None = None
        if manifest.kind == SAMPLES:
            samples = [
                Sample(row["messages"], row["prompt_row"], row["sample"], row["finish"], row["num_tokens"])
                for row in dataset
            ]
            self._tokens = [(list(ids), list(labels)) for ids, labels in training_tokens(samples, tokenizer)]
        else:
            rows = encode_dataset(dataset, tokenizer, None, name="anchor rows")
            self._tokens = [(row["input_ids"], row["labels"]) for row in rows]
        if config.anchor_kind == "kl":
            self._open_log_probs(config, manifest.kind)
        self._length = config.max_length
        lengths = [len(ids) if bounds.drop_too_long else min(len(ids), self._length) for ids, _ in self._tokens]
        kept = rows_that_fit(lengths, bounds, name="anchor rows")
        fitting = range(len(lengths)) if kept is None else kept
        cut = (self._tokens[number][0][: self._length] for number in fitting)
        check_token_ids(cut, bounds.limits.num_embeddings, tokenizer)
        self._usable = [number for number in fitting if places_of(self._tokens[number][1][: self._length])]
        if not self._usable:
            raise InputError(
                f"no row of '{config.anchor}' has a token of an answer within --max-length {config.max_length}"
            )

    def _open_log_probs(self, config: TrainConfig, kind: str) -> None:
        if kind != SAMPLES:
            raise ConfigError(
                f"--anchor-kind kl needs the model's own answers, and '{config.anchor}' is a {kind}",
                fix=f"ogpsa sample {config.model} --data {config.anchor} --log-probs 64 --out DIR, and --anchor DIR",
            )
        assert config.anchor is not None
        self._stored = StoredLogProbs(config.anchor)
        ours = [ids[place + 1] for ids, labels in self._tokens for place in places_of(labels)]
        if self._stored.tokens.tolist() != ours:
            raise ConfigError(
                f"the samples in '{config.anchor}' were made with another tokenizer or chat template than this model's",
                fix=f"ogpsa sample {config.model} --data DATA --log-probs 64 --out DIR",
            )

    def __len__(self) -> int:
        return len(self._usable)

    def num_places(self, index: int) -> int:
        """The number of places of a row."""
        return len(places_of(self._tokens[self._usable[index]][1][: self._length]))

    def __getitem__(self, index: int) -> AnchorRow:
        number = self._usable[index]
        ids, labels = (part[: self._length] for part in self._tokens[number])
        if self._stored is None:
            return AnchorRow(ids, labels)
        start, kept = self._stored.row(number), len(places_of(labels))
        return AnchorRow(ids, labels, TopLogProbs(start.ids[:kept], start.log_probs[:kept], start.rest[:kept]))


@dataclass(frozen=True)
class AnchorSchedule:
    """Which anchor rows belong to which optimizer step, whatever the number of ranks and accumulated batches.

    Rows come from shuffled passes over all of them that go on from step to step.

    Attributes:
        num_rows: the number of anchor rows.
        per_step: the number of rows of each step.
        seed: the seed of the order.
    """

    num_rows: int
    per_step: int
    seed: int

    def step(self, number: int) -> list[int]:
        """The rows of optimizer step ``number``, counted from 0."""
        first = number * self.per_step
        return [self._row(place) for place in range(first, first + self.per_step)]

    def _row(self, place: int) -> int:
        number, within = divmod(place, self.num_rows)
        order = np.random.default_rng([self.seed, _ANCHOR, number]).permutation(self.num_rows)
        return int(order[within])


def rows_per_step(num_safety: int, ratio: float) -> int:
    """The number of anchor rows beside ``num_safety`` rows of an optimizer step: ``S R / (1 - R)``, at least one."""
    share = Fraction(str(ratio))
    return max(1, round(num_safety * share / (1 - share)))


def part_of(rows: Sequence[int], slot: int, num_slots: int) -> tuple[list[int], float]:
    """One forward pass's share of a step's rows, and its weight.

    Every pass needs a row, so that all ranks make the same passes: one without a share gets the first row with weight
    0.
    """
    mine = list(rows[slot::num_slots])
    return (mine, 1.0) if mine else ([rows[0]], 0.0)
