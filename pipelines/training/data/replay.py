"""Replay: general data mixed into the safety data, in exact numbers and in an order that depends on the seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch.utils.data import Sampler

from data_registry.core.errors import ConfigError

_SAFETY, _REPLAY = 0, 1


@dataclass(frozen=True)
class Mixture:
    """The rows that an epoch trains on, and their order.

    An epoch is one pass over the S safety rows, with M = round(S R / (1 - R)) replay rows spread evenly among them: of
    the first n samples of an epoch, floor(n M / (S + M)) are replay. Safety rows are shuffled anew for each epoch.
    Replay rows come from shuffled passes over the replay data that go on from epoch to epoch, so that over a run no
    replay row is used twice more often than another.

    Attributes:
        num_safety: the number of rows of the safety data, S.
        num_available: the number of rows of the replay data.
        ratio: the share of replay among the samples, R.
        seed: the seed of both orders.
    """

    num_safety: int
    num_available: int
    ratio: float
    seed: int

    def __post_init__(self) -> None:
        if self.num_replay == 0:
            raise ConfigError(
                f"--replay-ratio {self.ratio:g} of {self.num_safety} rows is less than half a row of replay an epoch",
                fix="raise it, or train without --replay",
            )

    @property
    def num_replay(self) -> int:
        """The number of replay rows in one epoch, M."""
        ratio = Fraction(str(self.ratio))
        return round(self.num_safety * ratio / (1 - ratio))

    def __len__(self) -> int:
        return self.num_safety + self.num_replay

    def epoch(self, number: int) -> list[int]:
        """Row numbers of epoch ``number`` (counted from 0); the numbers of replay rows begin at ``num_safety``."""
        safety = iter(self._shuffled(_SAFETY, number, self.num_safety))
        replay = self._replay(number * self.num_replay)
        total, share = len(self), self.num_replay
        return [
            self.num_safety + next(replay) if (k + 1) * share // total > k * share // total else next(safety)
            for k in range(total)
        ]

    def _replay(self, start: int) -> Iterator[int]:
        """The replay rows of the endless sequence of passes, beginning at place ``start``."""
        number, place = divmod(start, self.num_available)
        while True:
            yield from self._shuffled(_REPLAY, number, self.num_available)[place:]
            number, place = number + 1, 0

    def _shuffled(self, which: int, number: int, size: int) -> list[int]:
        order: list[int] = np.random.default_rng([self.seed, which, number]).permutation(size).tolist()
        return order


class MixtureSampler(Sampler[int]):
    """Gives the trainer a :class:`Mixture`'s rows; the trainer tells it the epoch."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture, self._epoch = mixture, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration is for."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._mixture)

    def __iter__(self) -> Iterator[int]:
        return iter(self._mixture.epoch(self._epoch))
