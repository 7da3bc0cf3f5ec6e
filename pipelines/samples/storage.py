"""Samples on disk: a data set of conversations that end with the model's own answers, and a file of log-probabilities.

Samples are a folder that ``datasets.load_from_disk`` opens. Its column ``messages`` is that of a prepared data set, so
that every command that reads one takes samples too; ``extracted``, ``grade`` and ``reference`` are null where answers
were not graded. ``log-probs.safetensors`` has, for the T places of all rows one
after the other, ``ids`` ``[T, K]`` int32, ``log_probs`` ``[T, K]`` float32 and ``rest`` ``[T]`` float32
(:class:`pipelines.passes.distributions.TopLogProbs`); ``tokens`` ``[T]`` int32, the tokens that follow the places; and
``starts`` ``[rows + 1]`` int64: the places of row i are ``starts[i]`` to ``starts[i + 1]``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from data_registry.core.errors import ArtifactError, first_line
from data_registry.preparing.arrow_folder import ArrowFolder
from data_registry.schema import Message
from pipelines.passes.distributions import TopLogProbs
from pipelines.weights.writing import TensorFile

LOG_PROBS_FILE: Final = "log-probs.safetensors"


@dataclass(frozen=True)
class Sample:
    """One answer of the model.

    Attributes:
        messages: the conversation, which ends with the model's answer.
        prompt: the number of the row of the data set that the prompt is from.
        sample: the number of the answer among those to its prompt, from 0.
        finish: how the answer ended, ``"end"`` or ``"length"``: an answer that was cut off has no end of turn.
        num_tokens: the tokens that the model made, the end of turn included.
        extracted: what was compared of the answer; None where it does not have it, or was not graded.
        grade: ``"right"``, ``"wrong"`` or ``"unsure"``; None where it was not graded.
        reference: the answer that it was graded by.
    """

    messages: list[Message]
    prompt: int
    sample: int
    finish: str
    num_tokens: int
    extracted: str | None = None
    grade: str | None = None
    reference: str | None = None


def write_samples(folder: Path, samples: Sequence[Sample]) -> None:
    """Write the rows in the layout of ``datasets.save_to_disk``."""
    import pyarrow as pa

    schema = pa.schema(
        {
            "messages": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
            "prompt_row": pa.int64(),
            "sample": pa.int64(),
            "finish": pa.string(),
            "num_tokens": pa.int64(),
            "extracted": pa.string(),
            "grade": pa.string(),
            "reference": pa.string(),
        }
    )
    with ArrowFolder(folder, schema, description="A model's own answers.") as rows:
        rows.write(
            pa.RecordBatch.from_pylist(
                [
                    {
                        "messages": each.messages, "prompt_row": each.prompt, "sample": each.sample,
                        "finish": each.finish, "num_tokens": each.num_tokens,
                        "extracted": each.extracted, "grade": each.grade, "reference": each.reference,
                    }
                    for each in samples
                ],
                schema,
            )
        )  # fmt: skip
        rows.finish()


def write_log_probs(
    folder: Path, tokens: Sequence[Sequence[int]], k: int, rows: Callable[[], Iterator[Mapping[str, Tensor]]]
) -> None:
    """Write the log-probabilities of all rows, one row in memory at a time.

    Args:
        folder: the folder of the artifact.
        tokens: for each row the tokens that follow its places.
        k: the number of tokens that are kept at each place.
        rows: gives the distributions of the rows in order by the names of :class:`TopLogProbs`, from the first one
            again at each call.
    """
    sizes = [len(row) for row in tokens]
    total = sum(sizes)
    starts = torch.tensor([0, *itertools.accumulate(sizes)], dtype=torch.int64)
    with TensorFile(folder / LOG_PROBS_FILE, ["starts", "tokens", "ids", "log_probs", "rest"]) as file:
        file.add("starts", starts)
        file.add("tokens", torch.tensor([token for row in tokens for token in row], dtype=torch.int32))
        for name, dtype, shape in (
            ("ids", torch.int32, (total, k)),
            ("log_probs", torch.float32, (total, k)),
            ("rest", torch.float32, (total,)),
        ):
            file.begin(name, dtype, shape)
            for row in rows():
                file.write(row[name].to(dtype))


class StoredLogProbs:
    """The log-probabilities of samples, read by rows from a memory-mapped file.

    Args:
        folder: the samples.

    Attributes:
        starts: int64 ``[rows + 1]``, the first place of each row, and the number of places.
        tokens: int32 ``[T]``, the tokens that follow the places.

    Raises:
        ArtifactError: the samples were made without log-probabilities, or the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        file = folder / LOG_PROBS_FILE
        if not file.is_file():
            raise ArtifactError(
                f"'{folder}' has no log-probabilities",
                where=str(file),
                fix="make the samples with --log-probs K, such as 64",
            )
        try:
            self._file = safe_open(file, framework="pt")
            self.starts = self._file.get_tensor("starts")
            self.tokens = self._file.get_tensor("tokens")
            self._slices = {name: self._file.get_slice(name) for name in ("ids", "log_probs", "rest")}
        except (SafetensorError, OSError, KeyError) as error:
            raise ArtifactError(f"'{file}' cannot be read: {first_line(error)}", where=str(file)) from error

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> TopLogProbs:
        """The distributions at the places of one row."""
        start, stop = int(self.starts[number]), int(self.starts[number + 1])
        ids, log_probs, rest = (self._slices[name][start:stop] for name in ("ids", "log_probs", "rest"))
        return TopLogProbs(ids.to(torch.int64), log_probs, rest)
