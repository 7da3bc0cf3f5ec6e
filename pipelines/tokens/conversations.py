"""Conversations as token ids and labels, by the tokenizer's chat template; only the assistant's answers are trained.

A conversation is rendered to text once and that text is tokenised once, exactly as a server does. Which characters
are answers is read from the template's ``{% generation %}`` marks, or else found by rendering each beginning of the
conversation; the tokens that cover those characters are trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from data_registry.core.errors import InputError
from pipelines.core.parallel import ordered_map
from pipelines.core.progress import Progress
from pipelines.tokens.chat_template import Message, Span, render
from pipelines.tokens.labels import IGNORED, num_trained

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

_CHUNK_ROWS: Final = 256


@dataclass(frozen=True)
class Encoded:
    """One conversation in tokens.

    Attributes:
        input_ids: the token ids, as the chat template gives them in serving, cut on the right.
        labels: the token id where a token is trained, ``IGNORED`` elsewhere; as long as ``input_ids``.
        num_cut: the number of tokens that were cut off.
    """

    input_ids: list[int]
    labels: list[int]
    num_cut: int = 0

    @property
    def num_trained(self) -> int:
        """The number of labelled tokens that have a token before them, which is what the loss sees."""
        return num_trained(self.labels)


def encode(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    train_from: int = 0,
) -> Encoded:
    """Tokens of one conversation, with labels on the assistant's answers and the ends of their turns.

    White space that the template puts after the end of a turn is not trained.

    Args:
        messages: the messages, each with ``role`` and ``content``.
        tokenizer: a fast tokenizer with a chat template.
        max_length: the greatest length in tokens; longer sequences are cut on the right.
        train_from: the index of the first message that may be trained; used for the completion of a preference pair.

    Raises:
        InputError: the template is missing, refuses the conversation, or does not show where answers lie.

    Source:
        The mask of transformers' ``apply_chat_template(return_assistant_tokens_mask=True)`` (5.23). Differs: works
        without marks in the template, and does not stop at an answer whose leading white space is dropped.
    """
    return encode_batch([messages], tokenizer, max_length, train_from=[train_from])[0]


def encode_batch(
    conversations: Sequence[Sequence[Message]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    train_from: Sequence[int] | None = None,
    places: Sequence[str] | None = None,
) -> list[Encoded]:
    """Apply :func:`encode` to several conversations at once, which allows tokenising in several threads.

    Args:
        conversations: the conversations, each as :func:`encode` takes it.
        tokenizer: as for :func:`encode`.
        max_length: as for :func:`encode`.
        train_from: one index for each conversation, as for :func:`encode`.
        places: one phrase for each conversation that says where it stands, for error messages.

    Raises:
        InputError: as for :func:`encode`.
    """
    rendered: list[tuple[str, list[Span]]] = []
    for index, messages in enumerate(conversations):
        try:
            rendered.append(render(messages, tokenizer, train_from=train_from[index] if train_from else 0))
        except InputError as error:
            if places is None:
                raise
            where = places[index] + (f", {error.where}" if error.where else "")
            raise InputError(error.what, where=where, fix=error.fix) from error
    # The template has written the special tokens already; adding them again would double the first one.
    batch = tokenizer(
        [text for text, _ in rendered], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    encoded = []
    for ids, offsets, (_, spans) in zip(batch["input_ids"], batch["offset_mapping"], rendered, strict=True):
        trained = _covered(np.array(offsets, dtype=np.int64).reshape(-1, 2), spans)
        labels = np.where(trained, np.array(ids, dtype=np.int64), IGNORED).tolist()
        cut = 0 if max_length is None else max(0, len(ids) - max_length)
        encoded.append(Encoded(ids[: len(ids) - cut], labels[: len(ids) - cut], cut))
    return encoded


def _covered(
    offsets: np.ndarray[Any, np.dtype[np.int64]], spans: Iterable[Span]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """A mask ``[tokens]`` of the tokens whose character ranges ``[tokens, 2]`` lie at least partly in a span."""
    begins, ends = offsets[:, 0], offsets[:, 1]
    covered = np.zeros(len(offsets), dtype=np.bool_)
    for start, end in spans:
        # This also covers empty ranges inside a span: some tokenizers give white space an empty range at its end.
        covered |= (begins < end) & (ends > start)
    return covered


def encode_dataset(
    dataset: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    *,
    num_workers: int = 1,
    name: str = "",
) -> datasets.Dataset:
    """Tokenise a data set of conversations.

    Args:
        dataset: the data set; its rows have ``messages``.
        tokenizer: as for :func:`encode`.
        max_length: as for :func:`encode`.
        num_workers: the number of processes; it does not change the result.
        name: the name of the data set; the progress bar and errors show it.

    Returns:
        Columns ``input_ids`` and ``labels`` (lists of int32), one row for every row of ``dataset``, in order, in
        memory. Its fingerprint is a hash of its content.

    Raises:
        InputError: the data set is empty or has no conversations, the template refuses a row, or a row has no trained
            token.
    """
    import datasets as hf_datasets
    import pyarrow as pa

    if "messages" not in dataset.column_names:
        raise InputError(f"the data set has the columns {', '.join(dataset.column_names)}, and no 'messages'")
    if len(dataset) == 0:
        raise InputError("the data set is empty")
    schema = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())})
    batches, digest = [], hashlib.sha256()
    encoder = _ChunkEncoder(tokenizer, max_length, name)
    with (
        Progress(f"tokenizing {name}".strip(), total=len(dataset), unit="rows") as progress,
        closing(ordered_map(encoder, _chunks(dataset), num_workers=num_workers)) as chunks,
    ):
        for chunk in chunks:
            columns = [
                pa.array([getattr(row, name) for row in chunk], schema.field(name).type) for name in schema.names
            ]
            batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
            for column in columns:
                digest.update(column.flatten().to_numpy())
                digest.update(column.value_lengths().to_numpy())
            progress.advance(len(chunk))
    # The fingerprint is given because the library would otherwise pickle and hash all rows to compute it.
    return hf_datasets.Dataset(pa.Table.from_batches(batches, schema), fingerprint=digest.hexdigest()[:16])


def place_of_row(name: str, index: int) -> str:
    """The phrase that says in error messages where a row stands."""
    return f"{name}, row {index}" if name else f"row {index}"


def _chunks(dataset: datasets.Dataset) -> Iterator[tuple[int, list[list[Message]]]]:
    for start in range(0, len(dataset), _CHUNK_ROWS):
        yield start, dataset[start : start + _CHUNK_ROWS]["messages"]


@dataclass(frozen=True)
class _ChunkEncoder:
    """Encodes consecutive rows; an object, so that a worker process receives the tokenizer once."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None
    name: str

    def __call__(self, chunk: tuple[int, list[list[Message]]]) -> list[Encoded]:
        start, conversations = chunk
        places = [place_of_row(self.name, start + index) for index in range(len(conversations))]
        encoded = encode_batch(conversations, self.tokenizer, self.max_length, places=places)
        for row, place in zip(encoded, places, strict=True):
            if row.num_trained == 0:
                raise InputError(
                    "the row has no trained token"
                    + (f": all lie beyond its first {self.max_length} tokens" if row.num_cut else ""),
                    where=place,
                    fix="raise --max-length, or leave such rows out: prepare the data with --tokenizer and the same "
                    "--max-length, or train with --drop-too-long",
                )
        return encoded


def preview(
    input_ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[str, bool]]:
    """Split a row into pieces of text for people to look at, each with whether it is trained.

    A piece is one token, or several that make whole characters only together.
    """
    pieces: list[tuple[str, bool]] = []
    shown, pending = 0, 0  # Tokens [shown, pending) are written already and are context for those after them.
    for index, label in enumerate(labels):
        trained = label != IGNORED
        context = _decode(input_ids[shown:pending], tokenizer)
        text = _decode(input_ids[shown : index + 1], tokenizer)[len(context) :]
        turns = index + 1 == len(labels) or (labels[index + 1] != IGNORED) != trained
        if turns or not text.endswith("\ufffd"):
            pieces.append((text, trained))
            shown, pending = pending, index + 1
    return pieces


def _decode(input_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(
        tokenizer.decode(list(input_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if input_ids
        else ""
    )
