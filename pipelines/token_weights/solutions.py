"""What the rules hold an answer against: the right solution of its question, as text or in tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from data_registry.core.errors import InputError
from data_registry.formats.rewriting import question_text, rewriter_prompt
from data_registry.schema import Message
from pipelines.models.limits import Limits
from pipelines.samples.tokens import Tokens
from pipelines.token_weights.alignment import edited
from pipelines.token_weights.answers import Answers
from pipelines.tokens.conversations import encode, place_of_row
from pipelines.tokens.fitting import check_token_ids
from pipelines.tokens.labels import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFERENCE: Final = "reference"
"""The column with the right solution of a row's question."""


def check_solutions(rule: str, sides: Sequence[str], columns: Sequence[str], name: str) -> None:
    """Refuse data that cannot have what a rule holds answers against.

    Raises:
        InputError: the rule needs right solutions, and there are none for a side.
    """
    for side in sides:
        has_other = side == "rejected" or (side == "chosen" and rule == "edit")
        if rule in ("rewriter", "edit") and not has_other and REFERENCE not in columns:
            raise InputError(
                f"--rule {rule} needs a right solution for each '{side}', in a column '{REFERENCE}'; the data set has "
                f"the columns {', '.join(columns)}",
                where=name,
                fix="score the rejected side of preference pairs, whose chosen side is the solution; or use --rule "
                "logprob or ratio",
            )


def rewriter_rows(found: Answers, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> list[Tokens]:
    """For each answer the request to correct it, and then the answer's own tokens, which alone are labelled.

    Args:
        found: the answers.
        tokenizer: the rewriter's tokenizer.
        limits: what the rewriter has room for.

    Raises:
        InputError: a row has no right solution or several answers, or a request with its answer is longer than the
            rewriter's positions.
    """
    rows: list[Tokens] = []
    for answer in found.answers:
        row, place = found.rows[answer.row], place_of_row(found.name, found.numbers[answer.row])
        prompt, prediction = _parts(row, answer.side, place)
        solution = _reference(row, place) or _text(row, "chosen", answer.side, place)
        request = {"role": "user", "content": rewriter_prompt(question_text(prompt), solution, prediction)}
        # Rendered with the answer behind it, as the rows that a rewriter is trained on.
        encoded = encode([request, {"role": "assistant", "content": prediction}], tokenizer, train_from=1)
        start = next((at for at, label in enumerate(encoded.labels) if label != IGNORED), len(encoded.labels))
        ids = [*encoded.input_ids[:start], *answer.ids]
        if limits.positions is not None and len(ids) > limits.positions:
            raise InputError(
                f"the request to correct an answer, and the answer, have {len(ids)} tokens; the rewriter has "
                f"{limits.positions} positions",
                where=f"{place}, {answer.side}",
                fix="use a rewriter with more positions, or leave such rows out: prepare the data with --tokenizer "
                "MODEL and a smaller --max-length and --drop-too-long",
            )
        rows.append((ids, [IGNORED] * start + answer.ids))
    check_token_ids([ids for ids, _ in rows], limits.num_embeddings, tokenizer)
    return rows


def edit_flags(found: Answers, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> list[list[bool]]:
    """For each answer which of its tokens differ from the right one: the row's reference, or else the other side.

    Args:
        found: the answers.
        tokenizer: the tokenizer of training.
        max_length: the length in tokens at which training cuts rows, and so right answers too; None for none.

    Raises:
        InputError: a row has neither, or several answers.
    """
    flags = []
    for answer in found.answers:
        row, place = found.rows[answer.row], place_of_row(found.name, found.numbers[answer.row])
        prompt, _ = _parts(row, answer.side, place)
        reference = _reference(row, place)
        if answer.side == "chosen":
            other = found.tokens["rejected"][answer.row]
        elif reference is not None:
            messages = [*prompt, {"role": "assistant", "content": reference}]
            encoded = encode(messages, tokenizer, max_length, train_from=len(prompt))
            other = [label for label in encoded.labels if label != IGNORED]
        else:
            _text(row, "chosen", answer.side, place)
            other = found.tokens["chosen"][answer.row]
        flags.append(edited(answer.ids, other))
    return flags


def _parts(row: Mapping[str, Any], side: str, place: str) -> tuple[list[Message], str]:
    """The conversation before an answer, and the text of the answer."""
    if side != "answer":
        return row["prompt"], row[side][0]["content"]
    messages = row["messages"]
    if sum(message["role"] == "assistant" for message in messages) > 1:
        raise InputError(
            "the row has several answers, and the rule can hold only one against a right solution",
            where=place,
            fix="use --rule logprob or ratio, or data whose rows have one answer each",
        )
    return messages[:-1], messages[-1]["content"]


def _reference(row: Mapping[str, Any], place: str) -> str | None:
    """The right solution that comes with a row; None where it is missing.

    Raises:
        InputError: it is no text.
    """
    reference = row.get(REFERENCE)
    if reference is not None and not isinstance(reference, str):
        raise InputError(
            f"the column '{REFERENCE}' holds {type(reference).__name__}, where text is needed",
            where=place,
            fix="give the solutions as text when the data are prepared",
        )
    return reference if reference is not None and reference.strip() else None


def _text(row: Mapping[str, Any], column: str, side: str, place: str) -> str:
    """The text of another side, which stands in for a reference."""
    if side != "rejected":
        raise InputError(
            f"the row has no right solution in its column '{REFERENCE}' to hold its '{side}' against", where=place,
            fix="leave such rows out when the data are prepared, or score the rejected side, whose chosen side is one",
        )  # fmt: skip
    return str(row[column][0]["content"])
