"""The choice of weights by their scores: two passes that find exact thresholds, and one that writes the bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import groupby
from typing import Literal, TypeVar

import torch
from torch import Tensor

from data_registry.core.errors import NumericsError
from pipelines.gradients import selection
from pipelines.gradients.selection import BINS, NOTHING, Chooser, Cut, Sides
from pipelines.masks.bits import Flags
from pipelines.masks.parameters import Parameter
from pipelines.masks.scores import Scores
from pipelines.weights.read_ahead import Read, read_ahead

FoundT = TypeVar("FoundT")

QUANTILES = (0.5, 0.9, 0.99)
"""The quantiles of a tensor's scores that are kept with a mask."""


@dataclass(frozen=True)
class Choice:
    """Which weights are chosen: those at places (floor(skip_top n), floor(ratio n)] in the order of their scores.

    Attributes:
        ratio: the share of the weights, r.
        scope: ``"global"``: n counts the elements of all tensors; ``"tensor"``: those of each. At least one weight of a
            tensor is then chosen if it has any score.
        skip_top: the share that is left out at the top.
        order: ``"most"``: the highest scores are first, and scores of 0 are never chosen; ``"least"``: the lowest are.
    """

    ratio: float
    scope: Literal["global", "tensor"] = "global"
    skip_top: float = 0.0
    order: Literal["most", "least"] = "most"

    @property
    def least(self) -> bool:
        """Whether the lowest scores are chosen."""
        return self.order == "least"

    def places(self, numel: int) -> tuple[int, int]:
        """How many of ``numel`` elements are left out at the top, and at which place the chosen ones end."""
        # A share is meant as it is written: 0.29 of 100 are 29, and the product of floats is less.
        first, last = (int(Fraction(str(share)) * numel) for share in (self.skip_top, self.ratio))
        return first, max(last, first + 1) if self.scope == "tensor" and numel > first else last


@dataclass
class TensorScores:
    """What is known of a tensor's scores after the first pass.

    Attributes:
        largest: the largest score.
        zeros: the number of scores that are exactly 0.
        quantiles: its quantiles at ``QUANTILES``, below the true ones by less than 1 %.
    """

    largest: float = 0.0
    zeros: int = 0
    quantiles: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Look:
    """What the first pass finds in a block."""

    upper: Tensor
    largest: float
    zeros: int


@dataclass
class _Group:
    """Tensors that share a threshold. Counts are held only while they are needed: a model has many tensors."""

    name: str
    places: tuple[int, int]
    upper: Tensor | None = None
    bins: list[tuple[int, int]] = field(default_factory=list)
    lower: list[Tensor] = field(default_factory=list)
    cuts: tuple[Cut, Cut] = (NOTHING, NOTHING)

    def add_upper(self, counts: Tensor) -> None:
        """Add the counts of a tensor."""
        self.upper = counts if self.upper is None else self.upper + counts

    def settle_upper(self) -> None:
        """Find the bins of the places, and forget the counts."""
        if self.upper is not None:
            self.bins = [selection.bin_of(self.upper, place) if place else (-1, 0) for place in self.places]
        self.upper = None

    def add_lower(self, counts: Sequence[Tensor | None]) -> None:
        """Add the counts of a block."""
        self.lower = self.lower or [torch.zeros(BINS, dtype=torch.int64) for _ in self.places]
        for total, count in zip(self.lower, counts, strict=True):
            if count is not None:
                total += count

    def settle_lower(self) -> None:
        """Find the exact cuts, and forget the counts."""
        if self.lower:
            begin, end = (
                selection.cut_at(upper, above, lower, place) if upper >= 0 else NOTHING
                for place, (upper, above), lower in zip(self.places, self.bins, self.lower, strict=True)
            )
            self.cuts = (begin, end)
        self.lower = []


class Selection:
    """The choice among the weights of some parameters.

    After construction, which reads all scores twice, the cuts are known; :meth:`flags` reads the scores once more.

    Args:
        scores: the scores.
        parameters: the parameters, in canonical order, which decides between equal scores.
        choice: which weights are chosen.
        workers: threads that read ahead and count.
        progress: called with the number of elements that were gone through.

    Raises:
        NumericsError: a score is not finite.
    """

    def __init__(
        self,
        scores: Scores,
        parameters: Sequence[Parameter],
        choice: Choice,
        *,
        workers: int = 1,
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.choice, self.parameters = choice, list(parameters)
        self._scores, self._workers, self._progress = scores, workers, progress
        self.found = {each.name: TensorScores(quantiles=[0.0 for _ in QUANTILES]) for each in self.parameters}
        self._third_pass: Iterator[tuple[Parameter, list[Sides]]] | None = None
        if choice.scope == "global":
            group = _Group("all", choice.places(sum(each.numel for each in self.parameters)))
            self._groups = dict.fromkeys((each.name for each in self.parameters), group)
        else:
            self._groups = {each.name: _Group(each.name, choice.places(each.numel)) for each in self.parameters}
        self._count_upper()
        self._count_lower()
        self._choosers = {id(group): Chooser(group.cuts) for group in self._groups.values()}

    @property
    def groups(self) -> list[tuple[str, Cut, Cut]]:
        """For each group of tensors its name and the cuts where the chosen weights begin and end."""
        return list({group.name: (group.name, *group.cuts) for group in self._groups.values()}.values())

    @property
    def num_wanted(self) -> int:
        """How many weights the ratio asks for."""
        groups = {group.name: group.places for group in self._groups.values()}
        return sum(last - first for first, last in groups.values())

    @property
    def num_chosen(self) -> int:
        """How many weights are chosen; fewer than wanted where all others have a score of 0."""
        return sum(end.count - begin.count for _, begin, end in self.groups)

    def flags(self, parameter: Parameter) -> Iterator[Flags]:
        """Which elements of a parameter are chosen, in runs; every parameter must be asked for once, in order."""
        if self._third_pass is None:
            self._third_pass = self._each(self._sides)
        chooser = self._choosers[id(self._groups[parameter.name])]
        left = parameter.numel
        while left:
            owner, sides = next(self._third_pass)
            assert owner == parameter
            flags = chooser.choose(sides).numpy()
            left -= len(flags)
            yield flags

    def _sides(self, parameter: Parameter, read: Read) -> list[Sides]:
        keys = self._keys(read)
        return [selection.sides_of(keys, cut) for cut in self._groups[parameter.name].cuts]

    def _keys(self, read: Read) -> Tensor:
        return selection.keys_of(read(), least=self.choice.least)

    def _look(self, parameter: Parameter, read: Read) -> _Look:
        scores: Tensor = read()
        upper = selection.count_upper(selection.keys_of(scores, least=self.choice.least))
        # Scores of 0 are in the bin of the smallest ones, which is mostly empty.
        tiny = int(upper[BINS // 2 - 1 if self.choice.least else 0])
        zeros = scores.numel() - int(torch.count_nonzero(scores)) if tiny else 0
        return _Look(upper, selection.largest_of(scores), zeros)

    def _count_upper(self) -> None:
        looks = groupby(self._each(self._look), key=lambda found: found[0])
        for parameter, blocks in looks:
            found, upper = self.found[parameter.name], torch.zeros(BINS, dtype=torch.int64)
            for _, block in blocks:
                if not math.isfinite(block.largest):
                    raise NumericsError(
                        f"a score of {parameter.name} is not finite",
                        fix="use a run or model from before the training diverged",
                    )
                upper += block.upper
                found.largest = max(found.largest, block.largest)
                found.zeros += block.zeros
            found.quantiles = selection.quantiles(upper, QUANTILES, least=self.choice.least)
            group = self._groups[parameter.name]
            group.add_upper(upper)
            if self.choice.scope == "tensor":
                group.settle_upper()
        if self.choice.scope == "global":
            self._groups[self.parameters[0].name].settle_upper()

    def _counts(self, parameter: Parameter, read: Read) -> list[Tensor | None]:
        keys, bins = self._keys(read), self._groups[parameter.name].bins
        return [None if upper < 0 else selection.count_lower(keys, upper) for upper, _ in bins]

    def _count_lower(self) -> None:
        for parameter, blocks in groupby(self._each(self._counts), key=lambda found: found[0]):
            group = self._groups[parameter.name]
            for _, counts in blocks:
                group.add_lower(counts)
            if self.choice.scope == "tensor":
                group.settle_lower()
        if self.choice.scope == "global":
            self._groups[self.parameters[0].name].settle_lower()

    def _each(self, look: Callable[[Parameter, Read], FoundT]) -> Iterator[tuple[Parameter, FoundT]]:
        """What is found in each block of all parameters, in order; threads look, and none of what they read is kept."""

        def found_in(parameter: Parameter, read: Read) -> tuple[Parameter, int, FoundT]:
            numel = 0

            def counted() -> Tensor:
                nonlocal numel
                scores: Tensor = read()
                numel = scores.numel()
                return scores

            found = look(parameter, counted)
            return parameter, numel, found

        reads = (
            partial(found_in, parameter, read)
            for parameter in self.parameters
            for read in self._scores.reads(parameter)
            if parameter.numel
        )
        # What is found is small beside a block; each thread's own pool of memory is not, so that threads stay.
        with read_ahead(reads, self._workers, ahead=1) as results:
            for parameter, numel, found in results:
                self._progress(numel)
                yield parameter, found
