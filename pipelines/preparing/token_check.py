"""Tokenises rows while data are prepared, to check that each has a trained token and to show a preview."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord, hash_file, is_artifact
from data_registry.prepared import load_prepared
from data_registry.schema import NO_TRAINED_TOKEN, TEMPLATE, RejectedRow, Row
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.tokens.chat_template import chat_template_of
from pipelines.tokens.conversations import encode, preview
from pipelines.tokens.tokenizer import load_source_tokenizer, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PreviewRow = list[tuple[str, bool]]


def tokenizer_of(config: PrepareDataConfig) -> PreTrainedTokenizerBase | None:
    """The tokenizer that rows are checked with; None if the options name none."""
    if config.tokenizer is None:
        return None
    template, trusted = config.chat_template, config.trust_remote_code
    if is_artifact(Path(config.tokenizer)):
        from pipelines.models.reference import resolve_model

        source = resolve_model(config.tokenizer)
        tokenizer = load_source_tokenizer(source, chat_template=template, trust_remote_code=trusted)
    else:
        tokenizer = load_tokenizer(config.tokenizer, chat_template=template, trust_remote_code=trusted)
    chat_template_of(tokenizer)
    return tokenizer


def tokenizer_inputs(config: PrepareDataConfig, tokenizer: PreTrainedTokenizerBase | None) -> list[InputRecord]:
    """The manifest's records of the tokenizer and of the chat template file that replaces its own, if any."""
    if tokenizer is None:
        return []
    content = tokenizer.backend_tokenizer.to_str() + chat_template_of(tokenizer)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    records = [InputRecord(role="tokenizer", path=str(config.tokenizer), kind="tokenizer", fingerprint=fingerprint)]
    if config.chat_template is not None:
        path = config.chat_template
        records.append(InputRecord(role="chat_template", path=str(path), kind="file", fingerprint=hash_file(path)))
    return records


@dataclass(frozen=True)
class TokenCheck:
    """Checks that a row has a trained token within the length; an object, so that a worker gets the tokenizer once."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None

    def __call__(self, row: Row) -> Mapping[str, int]:
        """Check a row and count whether it is cut off.

        Raises:
            RejectedRow: the template refuses the row, or no token of an answer is trained.
        """
        cut = 0
        for messages, train_from in _conversations(row):
            try:
                encoded = encode(messages, self.tokenizer, self.max_length, train_from=train_from)
            except InputError as error:
                raise RejectedRow(TEMPLATE, error.what) from error
            if encoded.num_trained == 0:
                length = len(encoded.input_ids) + encoded.num_cut
                raise RejectedRow(
                    NO_TRAINED_TOKEN, f"of {length} tokens the answer has none in the first {self.max_length}"
                )
            cut += encoded.num_cut > 0
        return {"cut": min(cut, 1)}


def _conversations(row: Row) -> Iterator[tuple[list[dict[str, str]], int]]:
    """The conversations of a row, with the index of the first message that is trained."""
    if "messages" in row:
        yield row["messages"], 0
    else:
        for completion in (row["chosen"], row["rejected"]):
            yield [*row["prompt"], *completion], len(row["prompt"])


def preview_rows(path: Path, num_rows: int, tokenizer: PreTrainedTokenizerBase) -> list[PreviewRow]:
    """The first rows, split into pieces of text, each with whether it is trained."""
    rows, manifest = load_prepared(path)
    max_length = manifest.config.get("max_length")
    shown = []
    for index in range(min(num_rows, len(rows))):
        for messages, train_from in _conversations(rows[index]):
            encoded = encode(messages, tokenizer, max_length, train_from=train_from)
            shown.append(preview(encoded.input_ids, encoded.labels, tokenizer))
    return shown
