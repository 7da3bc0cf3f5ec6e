"""Keys and values of rows that begin and end at different times, in tensors that are made once and reused.

Shapes: R rows that are there now, T tokens of the longest, H heads of keys, D numbers of a head, S columns in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM: Final = 64
"""Columns beyond the longest row: tokens that can be added before rows are moved to the left."""


class RowCache(DynamicCache):
    """A cache of transformers whose rows end at the same column, as if shorter ones were padded on the left.

    Rows come in with what another cache has computed for them, and leave at any time. Only columns of the longest row
    that is there are handed to attention.

    Args:
        num_rows: most rows at a time.
        like: a cache whose layers show heads, sizes and types.

    Attributes:
        lengths: tokens of each row that is there.
        end: the column behind the last token of every row.
        num_bytes: bytes of keys and values in memory.
    """

    def __init__(self, num_rows: int, like: DynamicCache) -> None:
        super().__init__()
        self.lengths: list[int] = []
        self.end = 0
        self.num_bytes = 0
        self._num_rows = num_rows
        self.layers: list[Any] = [_RowLayer(self, layer.keys, layer.values) for layer in like.layers]

    @property
    def longest(self) -> int:
        """Tokens of the longest row that is there."""
        return max(self.lengths, default=0)

    def admit(self, computed: DynamicCache, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Take rows in, behind those that are there.

        Args:
            computed: keys and values with the tokens of each row from the first column on.
            rows: the row of ``computed`` for each new one; one may be taken several times.
            lengths: tokens of each new row; what ``computed`` has behind them does not count.
        """
        assert len(self.lengths) + len(rows) <= self._num_rows, "no more rows than there is memory for"
        needed = max(self.longest, *lengths)
        if needed >= self.end:
            self._move(needed)
        for layer, source in zip(self.layers, computed.layers, strict=True):
            for slot, (row, length) in enumerate(zip(rows, lengths, strict=True), start=len(self.lengths)):
                layer.all_keys[slot, :, self.end - length : self.end] = source.keys[row, :, :length]
                layer.all_values[slot, :, self.end - length : self.end] = source.values[row, :, :length]
        self.lengths += lengths

    def remove(self, slot: int) -> None:
        """Let a row go; the last one takes its place."""
        last, length = len(self.lengths) - 1, self.lengths[-1]
        if slot < last:
            for layer in self.layers:
                for whole in (layer.all_keys, layer.all_values):
                    whole[slot, :, self.end - length : self.end] = whole[last, :, self.end - length : self.end]
            self.lengths[slot] = length
        self.lengths.pop()

    def before_token(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Make room for one more token of each row.

        Returns:
            positions of the tokens, int64 ``[R, 1]``; and which columns a row has, with that of its token, bool
            ``[R, T + 1]``, or None where all have all.
        """
        if self.end == self.layers[0].all_keys.shape[2]:
            self._move(self.longest)
        lengths_R1 = torch.tensor(self.lengths, device=device)[:, None]
        if min(self.lengths) == self.longest:
            return lengths_R1, None
        columns_T = torch.arange(self.longest + 1, device=device)
        return lengths_R1, columns_T >= self.longest - lengths_R1

    def after_token(self) -> None:
        """Count the token that was added to each row."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def _move(self, end: int) -> None:
        """Move rows so that they end at a column, in new memory with room behind it, layer by layer."""
        kept = self.longest
        for layer in self.layers:
            layer.move(len(self.lengths), self.end - kept, kept, end, (self._num_rows, end + _ROOM))
        self.end = end
        self.num_bytes = sum(tensor.nbytes for layer in self.layers for tensor in (layer.all_keys, layer.all_values))


class _RowLayer(DynamicLayer):
    """The keys ``[rows, H, S, D]`` and values of one layer."""

    def __init__(self, cache: RowCache, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self._cache = cache
        self.all_keys = keys.new_zeros((0, keys.shape[1], 0, keys.shape[3]))
        self.all_values = values.new_zeros((0, values.shape[1], 0, values.shape[3]))
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add one token to each row: ``[R, H, 1, D]``. Returns ``[R, H, T + 1, D]``, views of what is stored."""
        rows, end = len(self._cache.lengths), self._cache.end
        first = end - self._cache.longest
        self.all_keys[:rows, :, end] = key_states[:, :, 0]
        self.all_values[:rows, :, end] = value_states[:, :, 0]
        return self.all_keys[:rows, :, first : end + 1], self.all_values[:rows, :, first : end + 1]

    def get_seq_length(self) -> int:
        """Tokens of the longest row before the next token."""
        return self._cache.longest

    def move(self, rows: int, first: int, kept: int, end: int, size: tuple[int, int]) -> None:
        """Take ``kept`` columns of the first rows from ``first`` on to where they end at ``end``, in new tensors."""
        for name in ("all_keys", "all_values"):
            old = getattr(self, name)
            # Zeros, not whatever was in memory: a masked column counts with weight 0, and 0 times NaN is NaN.
            new = old.new_zeros((size[0], old.shape[1], size[1], old.shape[3]))
            new[:rows, :, end - kept : end] = old[:rows, :, first : first + kept]
            setattr(self, name, new)
