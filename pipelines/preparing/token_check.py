"""Tokenises rows while data are prepared, to check that each has a trained token and to show a preview."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from data_registry.core.errors import InputError, OgpsaError
from data_registry.core.manifest import InputRecord, hash_file, is_artifact
from data_registry.prepared import load_prepared
from data_registry.schema import NO_TRAINED_TOKEN, TEMPLATE, TOO_LONG, RejectedRow, Row
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.models.limits import Limits, limits_of_source
from pipelines.models.reference import resolve_model
from pipelines.tokens.chat_template import chat_template_of
from pipelines.tokens.conversations import encode, preview
from pipelines.tokens.fitting import check_token_ids
from pipelines.tokens.rendering import EndlessTemplateError
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
        source = resolve_model(config.tokenizer)
        tokenizer = load_source_tokenizer(source, chat_template=template, trust_remote_code=trusted)
    else:
        tokenizer = load_tokenizer(config.tokenizer, chat_template=template, trust_remote_code=trusted)
    chat_template_of(tokenizer)
    return tokenizer


def limits_for(config: PrepareDataConfig) -> Limits:
    """What the model that ``--tokenizer`` names has room for; no limits where it names a tokenizer alone."""
    if config.tokenizer is None:
        return Limits()
    try:
        source = resolve_model(config.tokenizer)
    except OgpsaError:  # It was loaded as a tokenizer, which is all that is needed.
        return Limits()
    return limits_of_source(source, trust_remote_code=config.trust_remote_code)


def tokenizer_inputs(
    config: PrepareDataConfig, tokenizer: PreTrainedTokenizerBase | None, limits: Limits
) -> list[InputRecord]:
    """The manifest's records of the tokenizer and of the chat template file that replaces its own, if any."""
    if tokenizer is None:
        return []
    content = tokenizer.backend_tokenizer.to_str() + chat_template_of(tokenizer)
    if config.drop_too_long:
        content += str(limits.positions)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    named = str(config.tokenizer)
    # Absolute, so that lineage finds it from anywhere; a name of the hub stays as it is.
    place = os.path.abspath(os.path.expanduser(named)) if os.path.exists(os.path.expanduser(named)) else named
    records = [InputRecord(role="tokenizer", path=place, kind="tokenizer", fingerprint=fingerprint)]
    if config.chat_template is not None:
        file, digest = os.path.abspath(config.chat_template), hash_file(config.chat_template)
        records.append(InputRecord(role="chat_template", path=file, kind="file", fingerprint=digest))
    return records


@dataclass(frozen=True)
class TokenCheck:
    """Checks that a row has a trained token within the length, and that the model has room for it.

    It is an object, so that a worker gets the tokenizer once.

    Attributes:
        tokenizer: the tokenizer, with its chat template.
        max_length: the length in tokens at which training will cut rows; None for none.
        limits: what the model has room for.
        drop_too_long: whether rows that are too long are left out.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None
    limits: Limits = field(default_factory=Limits)
    drop_too_long: bool = False

    def __call__(self, row: Row) -> Mapping[str, int]:
        """Check a row, and count whether it is cut off or longer than the model's positions.

        Raises:
            RejectedRow: the template refuses the row, no token of an answer is trained, or the row is too long.
            InputError: the template does not end, or the model has no embeddings for a token.
        """
        cut = beyond = False
        longest = min((limit for limit in (self.max_length, self.limits.positions) if limit is not None), default=None)
        for messages, train_from in _conversations(row):
            try:
                encoded = encode(messages, self.tokenizer, self.max_length, train_from=train_from)
            except EndlessTemplateError:
                raise
            except InputError as error:
                raise RejectedRow(TEMPLATE, error.what) from error
            check_token_ids([encoded.input_ids], self.limits.num_embeddings, self.tokenizer)
            length = len(encoded.input_ids) + encoded.num_cut
            if self.drop_too_long and longest is not None and length > longest:
                raise RejectedRow(TOO_LONG, f"it has {length} tokens, more than {longest}")
            if encoded.num_trained == 0:
                raise RejectedRow(
                    NO_TRAINED_TOKEN, f"of {length} tokens the answer has none in the first {self.max_length}"
                )
            cut |= encoded.num_cut > 0
            beyond |= self.limits.positions is not None and len(encoded.input_ids) > self.limits.positions
        return {"cut": int(cut), "beyond_positions": int(beyond)}


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
