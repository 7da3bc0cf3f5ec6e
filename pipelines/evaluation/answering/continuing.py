"""Greedy or sampled continuation of many prompts, in which rows that have ended make place for those that wait.

Shapes: R rows that are continued now, U different prompts that begin together, L tokens, V words of the vocabulary.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from pipelines.evaluation.answering.requests import Request
from pipelines.evaluation.answering.row_cache import RowCache
from pipelines.evaluation.answering.shared_starts import Group, groups_by_start

_LEAST_SHARE: Final = 4
"""New rows begin when a batch's fourth is free, not one by one: a pass for one prompt costs almost that for several."""

_TOKENS_OF_A_PASS: Final = 512
"""Prompts of so many tokens are computed together in any case: a pass for fewer costs almost as much."""

Choose = Callable[[Tensor, Sequence[np.random.Generator]], Tensor]
"""The next token of each row, int64 ``[R]``, of logits ``[R, V]`` and the generator of each row."""


@dataclass
class _Row:
    """A prompt that is being continued."""

    request: Request
    draws: np.random.Generator
    made: list[int] = field(default_factory=list)


class Continuation:
    """Continues prompts with a model that :func:`pipelines.evaluation.answering.row_support.takes_rows` accepts.

    What prompts share from the start is computed once. The last token of a prompt is left to the first step of its
    row, so that prompts of different lengths can begin together without logits at different places. Rows are as if
    padded on the left, so that all models see what a padded batch shows them.

    Args:
        model: the model, on its device and in evaluation mode.
        requests: the prompts.
        batch_size: most rows at a time.
        ends: tokens that end an answer.
        choose: chooses the next tokens.
        mode: makes the context of passes: without gradients.
        groups: which prompts share a start; found out if not given.

    Attributes:
        peak_bytes: most bytes of keys and values that were held at a time.
    """

    def __init__(
        self,
        model: Any,
        requests: Sequence[Request],
        *,
        batch_size: int,
        ends: Collection[int],
        choose: Choose,
        mode: Callable[[], contextlib.AbstractContextManager[Any]] = torch.inference_mode,
        groups: Sequence[Group] | None = None,
    ) -> None:
        self._model, self._requests = model, requests
        self._ends, self._choose, self._mode = frozenset(ends), choose, mode
        self._num_rows = min(batch_size, len(requests))
        if groups is None:
            groups = groups_by_start([request.ids[:-1] for request in requests])
        self._waiting = deque((number, group.start) for group in groups for number in group.members)
        self._shared: tuple[tuple[int, ...], DynamicCache] | None = None
        self._rows: list[_Row] = []
        self._cache: RowCache | None = None
        self.peak_bytes = 0

    def run(self) -> Iterator[tuple[Request, list[int]]]:
        """Prompts, each with its new tokens, in the order in which they end."""
        while self._waiting or self._rows:
            # Contexts do not stay open between answers: who takes them computes in its own.
            with self._mode():
                ended = self._step()
            yield from ended

    def _step(self) -> list[tuple[Request, list[int]]]:
        free = self._num_rows - len(self._rows)
        if self._waiting and (not self._rows or free >= min(-(-self._num_rows // _LEAST_SHARE), len(self._waiting))):
            self._admit(free)
        logits_RV = self._next_logits()
        tokens = self._choose(logits_RV, [row.draws for row in self._rows]).tolist()
        for row, token in zip(self._rows, tokens, strict=True):
            row.made.append(token)
        ended = []
        # From the last, so that a row that takes the place of another has been looked at.
        for slot in range(len(self._rows) - 1, -1, -1):
            row = self._rows[slot]
            if row.made[-1] in self._ends or len(row.made) == row.request.max_new_tokens:
                ended.append((row.request, row.made))
                self._remove(slot)
        return ended

    def _next_logits(self) -> Tensor:
        """One pass for the last token of each row. Returns logits ``[R, V]``."""
        assert self._cache is not None, "rows have been admitted"
        device = self._model.device
        last_R1 = torch.tensor([[row.made[-1] if row.made else row.request.ids[-1]] for row in self._rows])
        positions_R1, mask_RT = self._cache.before_token(device)
        found = self._model(
            input_ids=last_R1.to(device),
            attention_mask=mask_RT,
            position_ids=positions_R1,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache.after_token()
        self.peak_bytes = max(self.peak_bytes, self._cache.num_bytes)
        logits_RV: Tensor = found.logits[:, -1].float()
        return logits_RV

    def _remove(self, slot: int) -> None:
        assert self._cache is not None, "rows have been admitted"
        self._cache.remove(slot)
        self._rows[slot] = self._rows[-1]
        self._rows.pop()

    def _admit(self, free: int) -> None:
        while free and self._waiting:
            start = self._waiting[0][1]
            common = self._requests[self._waiting[0][0]].ids[:start]
            numbers: list[int] = []
            most = min(free, self._most_together(self._waiting[0][0]))
            while len(numbers) < most and self._waiting and self._is_of(self._waiting[0], common):
                numbers.append(self._waiting.popleft()[0])
            self._begin(numbers, tuple(common))
            free -= len(numbers)
        if not self._waiting:
            self._shared = None

    def _most_together(self, longest: int) -> int:
        """Rows that are computed in one pass, so that their cache is small beside that of all rows."""
        fourth = -(-self._num_rows // _LEAST_SHARE)
        return max(fourth, _TOKENS_OF_A_PASS // len(self._requests[longest].ids))

    def _is_of(self, waiting: tuple[int, int], common: Sequence[int]) -> bool:
        number, start = waiting
        return start == len(common) and list(self._requests[number].ids[:start]) == list(common)

    def _begin(self, numbers: Sequence[int], common: tuple[int, ...]) -> None:
        """Compute prompts without their last tokens, each different one once, and take them in as rows."""
        requests = [self._requests[number] for number in numbers]
        rests = [tuple(request.ids[len(common) : -1]) for request in requests]
        different = {rest: row for row, rest in enumerate(dict.fromkeys(rests))}
        computed = self._compute(list(different), common)
        if self._cache is None:
            self._cache = RowCache(self._num_rows, computed)
        lengths = [len(request.ids) - 1 for request in requests]
        self._cache.admit(computed, [different[rest] for rest in rests], lengths)
        self._rows += [_Row(request, np.random.default_rng(request.seed)) for request in requests]
        others = {id(each): each for each in (computed, self._shared and self._shared[1]) if each is not None}
        self.peak_bytes = max(self.peak_bytes, self._cache.num_bytes + sum(map(_bytes_of, others.values())))

    def _compute(self, rests: Sequence[Sequence[int]], common: tuple[int, ...]) -> DynamicCache:
        """A cache with a row for each rest behind the common start, padded on the right, where nothing looks back."""
        if common and (self._shared is None or self._shared[0] != common):
            self._shared = common, self._pass(torch.tensor([common]), DynamicCache(config=self._model.config))
        elif not common:
            self._shared = None
        longest = max(map(len, rests))
        if self._shared is not None and not longest:
            return self._shared[1]
        # Prompts of one token have nothing to compute, but show what keys and values look like.
        ids_UL = torch.zeros((len(rests), max(longest, 1)), dtype=torch.int64)
        for row, rest in enumerate(rests):
            ids_UL[row, : len(rest)] = torch.tensor(rest, dtype=torch.int64)
        return self._pass(ids_UL, self._expanded(len(rests)))

    def _expanded(self, count: int) -> DynamicCache:
        """The common start for several rows."""
        if self._shared is None:
            return DynamicCache(config=self._model.config)
        layers = [
            (layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1))
            for layer in self._shared[1].layers
        ]
        return DynamicCache(layers, config=self._model.config)

    def _pass(self, ids_UL: Tensor, cache: DynamicCache) -> DynamicCache:
        before, device = cache.get_seq_length(), self._model.device
        positions_UL = torch.arange(before, before + ids_UL.shape[1], device=device).expand(len(ids_UL), -1)
        self._model(
            input_ids=ids_UL.to(device),
            position_ids=positions_UL,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cache


def _bytes_of(cache: DynamicCache) -> int:
    return sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
