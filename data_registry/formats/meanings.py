"""Columns of rows and keys of messages that no format needs: those that may be lost, and those that change a meaning.

Names are compared in small letters with underscores: ``toolCalls`` and ``Tool-Calls`` are ``tool_calls``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Kind(Enum):
    """How the value of a column changes what the row means."""

    REFUSED = "refused"
    """Whatever it says cannot be kept."""
    FIELD = "field"
    """It is part of what was asked, and formats that have the field take it in."""
    NUMBER = "number"
    """A number of which 0 says nothing."""
    LEARNT = "learnt"
    """A weight or switch: 1 says nothing, what has 0 is not to be learnt, anything between cannot be kept."""
    DESIRED = "desired"
    """A mark of which no says that the answer must not be learnt."""
    UNDESIRED = "undesired"
    """A mark of which yes says that the answer must not be learnt."""
    JUDGED = "judged"
    """A mark that may be about the answer or about the question: no is refused, so that a person decides."""
    SUSPECT = "suspect"
    """The same for a mark of what is bad, such as that of a moderation: yes is refused."""
    LABELLED = "labelled"
    """A word that may be about either: whatever does not speak for the row is refused."""
    VERDICT = "verdict"
    """A word about the answer: one that speaks against it says that the answer must not be learnt."""
    APPROVED = "approved"
    """A mark or word about the answer: no says that the answer must not be learnt."""
    CONDEMNED = "condemned"
    """A mark or word about the answer: yes says that the answer must not be learnt."""


@dataclass(frozen=True)
class Meaning:
    """What a column says beside the texts of its row.

    Attributes:
        kind: how its value is to be taken.
        says: the rest of a sentence that begins with the column's name.
        field: the field of text formats that takes such a column in; empty where there is none.
        remedy: what a person can do; empty where it depends on the column.
        by_value: whether a person can take the rows of one value.
    """

    kind: Kind
    says: str
    field: str = ""
    remedy: str = ""
    by_value: bool = False


_BLANKS: Final = " \t\r\n\v\f\u00a0\u200b\ufeff"


def normal(name: str) -> str:
    """A name in small letters with underscores."""
    return re.sub(r"[\s.\-]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip(_BLANKS))).lower()


_SYSTEM = Meaning(Kind.FIELD, "holds a system message", "system")
_HISTORY = Meaning(Kind.FIELD, "holds earlier turns of the conversation", "history")
_CONTEXT = Meaning(Kind.FIELD, "holds a text that the question is about", "context")
_INPUT = Meaning(Kind.FIELD, "holds a part of the question", "query")
PAIR: Final = Meaning(
    Kind.REFUSED,
    "holds another answer, of a pair of which one is preferred",
    remedy="--format preference reads both, where --set columns.chosen=... and --set columns.rejected=... name them",
)
"""Another answer, of a pair of which one is preferred."""
_CHOICE = Meaning(Kind.REFUSED, "says which of several answers is the better one")
_TOOLS = Meaning(Kind.REFUSED, "offers or calls tools, which the normal form has no place for")
_MEDIA = Meaning(Kind.REFUSED, "refers to pictures or sounds, which the normal form has no place for")
_MARGIN = Meaning(Kind.NUMBER, "says by how much one answer is preferred, which training does not take into account")
_LEARNT = Meaning(Kind.LEARNT, "says how much is to be learnt from it")
_MASK = Meaning(Kind.REFUSED, "says which parts are to be learnt; ogpsa trains every answer of a conversation")
_TEMPLATE = Meaning(Kind.REFUSED, "sets up the chat template for this row alone")
_THOUGHTS = Meaning(Kind.REFUSED, "holds thoughts that belong to the answer")
_DESIRED = Meaning(Kind.DESIRED, "marks answers as good or bad one by one (KTO)", by_value=True)
_UNDESIRED = Meaning(Kind.UNDESIRED, "marks answers that are bad", by_value=True)
_JUDGED = Meaning(Kind.JUDGED, "marks rows that are good or bad", by_value=True)

_TOOL_NAMES = (
    *("tools", "tool_calls", "tool_call", "function_call", "function_calls", "functions", "available_tools"),
    *("tool_choice", "tool_responses", "tool_response", "tool_results", "tool_outputs", "tool_call_id"),
)
_MEDIA_NAMES = (
    *("image", "images", "image_url", "image_path", "image_paths", "pixel_values", "picture"),
    *("image_file", "image_file_name", "image_filename"),
    *("video", "videos", "video_path", "audio", "audios", "audio_path", "speech"),
)
_WEIGHT_NAMES = ("weight", "weights", "loss_weight", "sample_weight", "example_weight", "train", "trainable", "loss")
_MASK_NAMES = (
    *("mask", "masks", "loss_mask", "assistant_mask", "assistant_masks", "completion_mask", "labels", "train_detail"),
    *("loss_scale", "train_on", "roles_to_train"),
)

CONTEXT_NAMES: Final = frozenset(
    {
        *("context", "contexts", "context_string", "passage", "passages", "article", "articles", "document"),
        *("documents", "paragraph", "paragraphs", "background", "knowledge", "story", "evidence", "premise"),
    }
)
"""Columns with a text that a question is about."""

SYSTEM_NAMES: Final = frozenset(
    {
        *("system", "system_prompt", "system_message", "system_instruction", "system_instructions", "sys"),
        *("sys_prompt", "system_text", "preprompt"),
    }
)
"""Columns with a system message."""

HISTORY_NAMES: Final = frozenset(
    {
        *("history", "chat_history", "conversation_history", "dialog_history", "dialogue_history", "message_history"),
        *("previous_turns", "past_turns", "previous_messages", "past_messages", "histories"),
    }
)
"""Columns with earlier turns."""

REJECTED_NAMES: Final = frozenset({"rejected_response", "rejected_messages", "rejected"})
"""Columns with a rejected answer beside a conversation or an answer that is preferred to it."""

_PAIR_NAMES = (
    *("rejected", "rejected_response", "rejected_responses", "rejected_messages", "rejected_output"),
    *("rejected_completion", "rejected_answer", "response_rejected", "answer_rejected", "reject", "non_preferred"),
    *("non_preferred_output", "dispreferred", "dispreferred_output", "negative_response", "bad_response"),
    *("chosen", "chosen_response", "chosen_messages", "preferred_output", "hallucinated_answer"),
)
_CHOICE_NAMES = (
    *("safer_response_id", "better_response_id", "preferred_response_id", "winner", "preference", "preferred"),
)
_DESIRED_NAMES = (
    *("label", "kto_tag", "kto_label", "desirable", "is_desirable", "desired", "is_desired", "is_chosen", "accepted"),
)

CONVERSATION_MEANINGS: Final[Mapping[str, Meaning]] = {
    **dict.fromkeys(SYSTEM_NAMES, _SYSTEM),
    **dict.fromkeys(HISTORY_NAMES, _HISTORY),
    **dict.fromkeys(_PAIR_NAMES, PAIR),
    **dict.fromkeys(_CHOICE_NAMES, _CHOICE),
    **dict.fromkeys(_TOOL_NAMES, _TOOLS),
    **dict.fromkeys(_MEDIA_NAMES, _MEDIA),
    **dict.fromkeys(("margin", "margins", "reward_margin", "score_margin", "preference_margin"), _MARGIN),
    **dict.fromkeys(_WEIGHT_NAMES, _LEARNT),
    **dict.fromkeys(_MASK_NAMES, _MASK),
    **dict.fromkeys(("chat_template", "chat_template_kwargs", "template_kwargs"), _TEMPLATE),
    **dict.fromkeys(("reasoning_content", "thinking"), _THOUGHTS),
    **dict.fromkeys(_DESIRED_NAMES, _DESIRED),
    **dict.fromkeys(
        ("undesirable", "is_undesirable", "undesired", "is_rejected", "hallucination", "is_hallucination"), _UNDESIRED
    ),
    **dict.fromkeys(("is_safe", "is_response_safe", "response_safe", "safe", "is_correct", "correct"), _JUDGED),
}
"""What columns say beside a whole conversation."""

MEANINGS: Final[Mapping[str, Meaning]] = {
    **CONVERSATION_MEANINGS,
    **dict.fromkeys(CONTEXT_NAMES, _CONTEXT),
    "input": _INPUT,
}
"""What columns say beside a question and an answer in columns of their own."""

MESSAGE_MEANINGS: Final[Mapping[str, Meaning]] = {
    **dict.fromkeys(_TOOL_NAMES, _TOOLS),
    **dict.fromkeys(_MEDIA_NAMES, _MEDIA),
    **dict.fromkeys((*_WEIGHT_NAMES, "learn", "label", "desirable", "desired"), _LEARNT),
    **dict.fromkeys(_MASK_NAMES, _MASK),
    **dict.fromkeys(("reasoning_content", "reasoning", "thinking", "thought", "thoughts"), _THOUGHTS),
    "refusal": Meaning(Kind.REFUSED, "holds a refusal in place of the text"),
}
"""What keys of messages say beside role and text."""

IGNORED: Final = frozenset(
    {
        *(
            "",
            "id",
            "idx",
            "index",
            "uid",
            "uuid",
            "guid",
            "no",
            "number",
            "row",
            "key",
            "unnamed:_0",
            "__index_level_0__",
        ),
        *("source", "sources", "dataset", "dataset_name", "data_source", "origin", "provenance", "subset", "config"),
        *("metadata", "meta", "split", "fold", "category", "categories", "subcategory", "topic", "topics", "subject"),
        *("domain", "tags", "type", "language", "lang", "locale", "timestamp", "time", "date", "created", "created_at"),
        *("updated_at", "length", "lengths", "len", "seq_length", "num_tokens", "n_tokens", "token_count", "num_turns"),
        *("turn", "token_counts", "model", "model_name", "models", "generator", "license", "licence", "url", "urls"),
        *("hash", "checksum", "author", "authors", "annotator", "annotators", "version", "seed", "difficulty", "level"),
        *("ref_chosen_logps", "ref_rejected_logps", "reference_chosen_logps", "reference_rejected_logps"),
        "parallel_tool_calls",
    }
)
"""Names of columns and keys that describe a row and say nothing of what it means."""

_IGNORED_ENDINGS: Final = (
    *("_id", "_ids", "_sha256", "_md5", "_hash", "_uuid", "_timestamp", "_url", "_index", "_category"),
)


def is_ignored(name: str) -> bool:
    """Whether a column or key of this normal name only describes the row."""
    return name in IGNORED or name.endswith(_IGNORED_ENDINGS)
