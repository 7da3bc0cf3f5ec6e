"""Opening token weights for training: verified, and given out only for the very tokens that they were computed for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_registry.core.errors import ArtifactError
from data_registry.core.manifest import Manifest, open_artifact
from pipelines.token_weights.description import KIND, TokenWeightsDescription, read_description
from pipelines.token_weights.storage import read_table
from pipelines.tokens.labels import IGNORED

_AGAIN: Final = (
    "compute them again for this data with the tokenizer, template and length of training:  "
    "ogpsa score-tokens MODEL --data DATA --max-length N --out DIR"
)


def answer_tokens(labels: Sequence[int]) -> list[int]:
    """The tokens of a row for SFT that weights are for: those that are labelled and have a token before them.

    Args:
        labels: the labels of all tokens of the row, ``IGNORED`` where a token is not trained.
    """
    return [label for label in labels[1:] if label != IGNORED]


@dataclass(frozen=True)
class TokenWeights:
    """Token weights that are ready to be read.

    Attributes:
        directory: the artifact.
        description: what is kept with them.
        manifest: the artifact's manifest.
        table: the lines, in the layout of :mod:`pipelines.token_weights.storage`.
    """

    directory: Path
    description: TokenWeightsDescription
    manifest: Manifest
    table: pa.Table

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that have weights, of ``answer``, ``chosen`` and ``rejected``."""
        return tuple(self.description.sides)

    def of_rows(
        self, side: str, completion_ids: Sequence[Sequence[int]], *, rows: Sequence[int] | None = None
    ) -> list[list[float]]:
        """The weights of the completions of one side, if they are for these very tokens.

        Args:
            side: ``answer`` for rows for SFT, ``chosen`` or ``rejected`` for preference pairs.
            completion_ids: for each row the tokens of the completion as training encodes them: of a pair its
                ``chosen_ids`` or ``rejected_ids``, of a row for SFT its :func:`answer_tokens`.
            rows: for each completion the number of its row among those that weights were computed for, from 0; None
                if these are all of them in order.

        Returns:
            for each completion one weight for each of its tokens.

        Raises:
            ArtifactError: the side has no weights, there are other numbers of rows, or the tokens of a row are others;
                the message names the first such row.
        """
        ids, weights = self._of_side(side)
        if rows is None:
            self._check_number(side, len(ids), len(completion_ids), ids, completion_ids)
            rows = range(len(completion_ids))
        found: list[list[float]] = []
        for row, wanted in zip(rows, completion_ids, strict=True):
            if not 0 <= row < len(ids):
                raise self._other(f"it has {len(ids)} rows with a side '{side}', and training reads row {row}", row)
            stored = ids[row].values.to_numpy()
            if not np.array_equal(stored, np.asarray(wanted, dtype=np.int64)):
                raise self._other(_difference(stored.tolist(), list(wanted)), row, side)
            found.append(weights[row].as_py())
        return found

    def _of_side(self, side: str) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        if side not in self.sides:
            raise ArtifactError(
                f"'{self.directory}' has no weights of the side '{side}', only of {', '.join(self.sides)}",
                where=str(self.directory),
                fix=f"compute them:  ogpsa score-tokens MODEL --data DATA --side {side} --out DIR",
            )
        lines = self.table.filter(pc.equal(self.table.column("side"), side)).combine_chunks()
        if not np.array_equal(lines.column("row").to_numpy(), np.arange(len(lines))):
            raise ArtifactError(f"'{self.directory}' lacks rows of the side '{side}'", where=str(self.directory))
        return lines.column("ids"), lines.column("weight")

    def _check_number(
        self, side: str, there: int, here: int, ids: pa.ChunkedArray, completion_ids: Sequence[Sequence[int]]
    ) -> None:
        """Refuse another number of rows, naming the first row that is another one."""
        if there == here:
            return
        pairs = itertools.zip_longest((each.as_py() for each in ids), map(list, completion_ids))
        row = next(number for number, (stored, wanted) in enumerate(pairs) if stored != wanted)
        raise self._other(f"they are for {there} rows with a side '{side}', and training reads {here}", row, side)

    def _other(self, what: str, row: int, side: str | None = None) -> ArtifactError:
        beside = "" if side is None else f", {side}"
        return ArtifactError(
            f"the token weights '{self.directory}' are not for the tokens that training encodes: {what}",
            where=f"row {row}{beside}; they were computed with --max-length {self.description.max_length}",
            fix=_AGAIN,
        )


def open_token_weights(path: Path, *, hashes: bool = False) -> TokenWeights:
    """Verify token weights and read them.

    Args:
        path: the artifact.
        hashes: verify contents too, not only presence and sizes.

    Raises:
        InputError: there is no artifact.
        ArtifactError: it holds no token weights, or is damaged.
    """
    manifest = open_artifact(path, KIND, hashes=hashes)
    description = read_description(path)
    table = read_table(path)
    lengths = [pc.list_value_length(table.column(name)) for name in ("ids", "weight")]
    if not lengths[0].equals(lengths[1]):
        raise ArtifactError(f"the weights in '{path}' are not as many as the tokens", where=str(path))
    return TokenWeights(path, description, manifest, table)


def _difference(stored: list[int], wanted: list[int]) -> str:
    if len(stored) != len(wanted):
        return f"its answer has {len(stored)} tokens there and {len(wanted)} here"
    place = next(index for index, (there, here) in enumerate(zip(stored, wanted, strict=True)) if there != here)
    return f"token {place + 1} of its answer is {stored[place]} there and {wanted[place]} here"
