"""Transcripts of the Human and the Assistant are taken apart, or refused where that cannot be done."""

from __future__ import annotations

import random
from typing import Any

import pytest

from data_registry.formats.detection import detect
from data_registry.formats.registry import make_layout, read_row
from data_registry.schema import RejectedRow
from tests.data_registry.messages import bot, system, user

WORDS = ["tree", "old", "stone", "why", "blue", "seven:", "Human", "nature", "Assistant", "a\nb", "\n"]
MARKS = {"user": "Human", "assistant": "Assistant"}


def transcript(messages: list[dict[str, str]], separator: str = "\n\n") -> str:
    return "".join(f"{separator}{MARKS[entry['role']]}: {entry['content']}" for entry in messages)


def rows_of(prompt: str, asked: list[dict[str, str]], lead: str) -> dict[str, tuple[dict[str, Any], bool]]:
    """Rows of one question and the answers A and B, by what they are; and whether they are pairs."""
    return {
        "preference": ({"prompt": prompt, "chosen": lead + "A", "rejected": lead + "B"}, True),
        "messages as answers": ({"prompt": prompt, "chosen": [bot("A")], "rejected": [bot("B")]}, True),
        "whole transcripts": (
            {
                "prompt": prompt,
                **{name: transcript([*asked, bot(text)]) for name, text in (("chosen", "A"), ("rejected", "B"))},
            },
            True,
        ),
        "saferlhf": (
            {"prompt": prompt, "response_0": lead + "B", "response_1": lead + "A", "safer_response_id": 1},
            True,
        ),
        "prompt-completion": ({"prompt": prompt, "completion": lead + "A"}, False),
        "qa": ({"question": prompt, "answer": lead + "A"}, False),
        "alpaca": ({"instruction": prompt, "input": "", "output": lead + "A"}, False),
    }


def test_a_prompt_that_is_a_transcript_is_taken_apart_in_every_format() -> None:
    rng = random.Random(1)
    for _ in range(60):
        texts = [" ".join(rng.choices(WORDS, k=4)).strip() or "x" for _ in range(2 * rng.randint(0, 2) + 1)]
        asked = [(user, bot)[number % 2](text) for number, text in enumerate(texts)]
        separator = rng.choice(["\n\n", "\r\n\r\n"])
        end = rng.choice(["", f"{separator}Assistant:", f"{separator}Assistant: "])
        prompt = transcript(asked, separator) + end
        prompt = prompt.lstrip() if end and rng.random() < 0.5 else prompt
        for kind, (row, is_pair) in rows_of(prompt, asked, rng.choice(["", " ", "\n", "\n\nAssistant: "])).items():
            layout = make_layout("preference") if kind == "messages as answers" else detect([row])
            stripped = [{**entry, "content": entry["content"].strip()} for entry in asked]
            pair = {"prompt": stripped, "chosen": [bot("A")], "rejected": [bot("B")]}
            expected = pair if is_pair else {"messages": [*stripped, bot("A")]}
            assert read_row(row, layout, "preference" if is_pair else "sft") == expected, (kind, row)


def test_the_system_message_of_the_row_stands_before_the_turns() -> None:
    row = {"prompt": "\n\nHuman: a\n\nAssistant:", "chosen": " A", "rejected": " B", "system": "s"}
    assert read_row(row, make_layout("preference"), "preference")["prompt"] == [system("s"), user("a")]


def test_the_beginning_of_an_answer_in_the_prompt_belongs_to_the_answers() -> None:
    row = {"prompt": "\n\nHuman: a\n\nAssistant: Well,", "chosen": " yes.", "rejected": " no."}
    found = read_row(row, make_layout("preference"), "preference")
    assert (found["chosen"], found["rejected"]) == ([bot("Well, yes.")], [bot("Well, no.")])


PROMPT = "\n\nHuman: a\n\nAssistant:"
APART = "take its turns apart"
REFUSED = {
    "no answer": ("preference", {"prompt": PROMPT, "chosen": " ", "rejected": "B"}, "empty"),
    "other transcripts": (
        "hh",
        {"prompt": "\n\nHuman: b\n\nAssistant:", "chosen": PROMPT + " A", "rejected": PROMPT + " B"},
        "not part",
    ),
    "an input beside it": ("alpaca", {"instruction": PROMPT, "input": "i", "output": "A"}, "no place for the query"),
    "a context beside it": ("qa", {"question": PROMPT, "context": "c", "answer": "A"}, "no place for the context"),
    "words before it": (
        "prompt-completion",
        {"prompt": "Be kind.\n\nHuman: a\n\nAssistant:", "completion": "A"},
        APART,
    ),
    "other marks": ("prompt-completion", {"prompt": "### Human: a\n### Assistant:", "completion": "A"}, APART),
    "marks of Vicuna": ("prompt-completion", {"prompt": "USER: a\nASSISTANT:", "completion": "A"}, APART),
    "marks of ChatML": (
        "qa",
        {"question": "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", "answer": "A"},
        APART,
    ),
    "marks of Llama 2": ("preference", {"prompt": "[INST] a [/INST]", "chosen": "A", "rejected": "B"}, APART),
    "marks of Alpaca": ("qa", {"question": "### Instruction:\na\n\n### Response:", "answer": "A"}, APART),
    "a message": ("messages", {"messages": [user(PROMPT), bot(" A")]}, APART),
}


@pytest.mark.parametrize(("name", "row", "says"), REFUSED.values(), ids=REFUSED)
def test_transcripts_that_cannot_be_taken_apart_are_refused(name: str, row: dict[str, Any], says: str) -> None:
    with pytest.raises(RejectedRow) as caught:
        read_row(row, make_layout(name), "preference" if "rejected" in row else "sft")
    assert says in caught.value.detail


@pytest.mark.parametrize(
    "text", ["Human: what is this word?", "Who was the first Assistant: Ann or Bo?", "Q: a\nA:", "Human"]
)
def test_texts_that_look_a_little_like_transcripts_stay_as_they_are(text: str) -> None:
    row = {"prompt": text, "completion": " A"}
    assert read_row(row, make_layout("prompt-completion"), "sft")["messages"] == [user(text), bot(" A")]
