"""Formats: every one read from an example written by hand, every kind of unusable row rejected with its reason."""

import json

import pytest

from data_registry.core.errors import ConfigError
from data_registry.formats.detection import detect
from data_registry.formats.registry import FORMATS, make_layout, read_row, register
from data_registry.schema import (
    EMPTY,
    FILTERED,
    ROLES,
    UNDECIDED,
    UNREADABLE,
    RejectedRow,
    message,
)
from tests.data_registry.messages import bot, system, user


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


TRANSCRIPT = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why: Human?\n\nAssistant: "


# format, task, row, what it must become
GOOD = {
    "alpaca": ("alpaca", "sft", {"instruction": "Add", "input": "", "output": "2"}, [user("Add"), bot("2")]),
    "alpaca with input": (
        "alpaca",
        "sft",
        {"instruction": "Add", "input": "1 1", "output": "2"},
        [user("Add\n1 1"), bot("2")],
    ),
    "alpaca with system and history": (
        "alpaca",
        "sft",
        {"instruction": "b", "output": "B", "system": "s", "history": [["a", "A"]]},
        [system("s"), user("a"), bot("A"), user("b"), bot("B")],
    ),
    "alpaca with a number": ("alpaca", "sft", {"instruction": "1+1", "output": 2}, [user("1+1"), bot("2")]),
    "messages": (
        "messages",
        "sft",
        {"messages": [system("s"), user("a"), bot("A")]},
        [system("s"), user("a"), bot("A")],
    ),
    "messages as JSON text": (
        "messages",
        "sft",
        {"messages": '[{"role":"user","content":"a"},{"role":"assistant","content":"A"}]'},
        [user("a"), bot("A")],
    ),
    "sharegpt": (
        "sharegpt",
        "sft",
        {"conversations": [{"from": "system", "value": "s"}, human("a"), gpt("A"), human("b"), gpt("B")]},
        [system("s"), user("a"), bot("A"), user("b"), bot("B")],
    ),
    "ranked sharegpt": (
        "sharegpt",
        "preference",
        {"conversations": [human("a")], "chosen": gpt("A"), "rejected": gpt("B")},
        ([user("a")], [bot("A")], [bot("B")]),
    ),
    "ranked sharegpt as text": (
        "sharegpt",
        "preference",
        {"conversations": [human("a")], "chosen": "A", "rejected": "B"},
        ([user("a")], [bot("A")], [bot("B")]),
    ),
    "ranked sharegpt for sft": (
        "sharegpt",
        "sft",
        {"conversations": [human("a")], "chosen": gpt("A"), "rejected": gpt("B")},
        [user("a"), bot("A")],
    ),
    "prompt-completion": ("prompt-completion", "sft", {"prompt": "a", "completion": " A"}, [user("a"), bot(" A")]),
    "prompt-completion of messages": (
        "prompt-completion",
        "sft",
        {"prompt": [system("s"), user("a")], "completion": [bot("A")]},
        [system("s"), user("a"), bot("A")],
    ),
    "hh pair": (
        "hh",
        "preference",
        {"chosen": TRANSCRIPT + "No.", "rejected": TRANSCRIPT + "Yes."},
        ([user("Hi"), bot("Yes?"), user("Why: Human?")], [bot("No.")], [bot("Yes.")]),
    ),
    "hh for sft": (
        "hh",
        "sft",
        {"chosen": TRANSCRIPT + "No.\n", "rejected": TRANSCRIPT + "Yes."},
        [user("Hi"), bot("Yes?"), user("Why: Human?"), bot("No.")],
    ),
    "gsm8k": (
        "gsm8k",
        "sft",
        {"question": "How many?", "answer": "16 - 3 = <<16-3=13>>13 eggs.\n#### 13"},
        [user("How many?"), bot("16 - 3 = 13 eggs.\n#### 13")],
    ),
    "qa": ("qa", "sft", {"question": "a", "answer": "A"}, [user("a"), bot("A")]),
    "qa of HaluEval": (
        "qa",
        "sft",
        {"ID": "1", "user_query": "a", "chatgpt_response": "A", "hallucination": "no"},
        [user("a"), bot("A")],
    ),
    "preference": (
        "preference",
        "preference",
        {"prompt": "a", "chosen": "A", "rejected": "B"},
        ([user("a")], [bot("A")], [bot("B")]),
    ),
    "preference for sft": ("preference", "sft", {"prompt": "a", "chosen": "A", "rejected": "B"}, [user("a"), bot("A")]),
    "preference of messages": (
        "preference",
        "preference",
        {"prompt": [user("a")], "chosen": [bot("A")], "rejected": [bot("B")]},
        ([user("a")], [bot("A")], [bot("B")]),
    ),
    "preference of one message each": (
        "preference",
        "preference",
        {"prompt": "a", "chosen": bot("A"), "rejected": bot("B")},
        ([user("a")], [bot("A")], [bot("B")]),
    ),
    "preference of whole conversations (UltraFeedback)": (
        "preference",
        "preference",
        {"prompt": "a", "chosen": [user("a"), bot("A")], "rejected": [user("a"), bot("B")], "score_chosen": 8.0},
        ([user("a")], [bot("A")], [bot("B")]),
    ),
    "whole conversations for sft": (
        "preference",
        "sft",
        {"chosen": [user("a"), bot("A")], "rejected": [user("a"), bot("B")]},
        [user("a"), bot("A")],
    ),
    "saferlhf": (
        "saferlhf",
        "preference",
        {"prompt": "a", "response_0": "B", "response_1": "A", "safer_response_id": 1, "better_response_id": 0},
        ([user("a")], [bot("A")], [bot("B")]),
    ),
    "saferlhf from CSV": (
        "saferlhf",
        "preference",
        {"prompt": "a", "response_0": "A", "response_1": "B", "safer_response_id": "0"},
        ([user("a")], [bot("A")], [bot("B")]),
    ),
    "saferlhf for sft": (
        "saferlhf",
        "sft",
        {"prompt": "a", "response_0": "B", "response_1": "A", "safer_response_id": 1, "is_response_1_safe": True},
        [user("a"), bot("A")],
    ),
}


@pytest.mark.parametrize(("name", "task", "row", "expected"), GOOD.values(), ids=GOOD)
def test_rows_in_normal_form(name, task, row, expected):
    expected = (
        {"messages": expected} if task == "sft" else dict(zip(("prompt", "chosen", "rejected"), expected, strict=True))
    )
    assert read_row(row, make_layout(name), task) == expected


# Not to be guessed from a look at the values, so these formats have to be named.
RECOGNISABLE = {key: case for key, case in GOOD.items() if key not in ("messages as JSON text", "alpaca with a number")}


@pytest.mark.parametrize(("name", "task", "row", "expected"), RECOGNISABLE.values(), ids=RECOGNISABLE)
def test_rows_are_recognised_as_their_format(name, task, row, expected):
    assert detect([row] * 3).format == name


BAD = {
    "a column is missing": ("alpaca", "sft", {"instruction": "a", "outptu": "A"}, UNREADABLE, "no 'output'"),
    "a column is null": ("alpaca", "sft", {"instruction": "a", "output": None}, EMPTY, "'output' is null"),
    "empty prompt": ("alpaca", "sft", {"instruction": " ", "input": "", "output": "A"}, EMPTY, "prompt is empty"),
    "empty answer": ("qa", "sft", {"question": "a", "answer": "\n"}, EMPTY, "assistant is empty"),
    "answer is a list": ("qa", "sft", {"question": "a", "answer": ["A"]}, UNREADABLE, "list, not text"),
    "history is no pairs": (
        "alpaca",
        "sft",
        {"instruction": "a", "output": "A", "history": ["b"]},
        UNREADABLE,
        "pairs",
    ),
    "no messages": ("messages", "sft", {"messages": []}, EMPTY, "no messages"),
    "messages are text": ("messages", "sft", {"messages": "hello"}, UNREADABLE, "str, not a list"),
    "messages are broken JSON": ("messages", "sft", {"messages": "[{"}, UNREADABLE, "not JSON"),
    "a message is text": ("messages", "sft", {"messages": ["a", "A"]}, UNREADABLE, "not an object"),
    "a message has no content": ("messages", "sft", {"messages": [{"role": "user"}]}, UNREADABLE, "no 'content'"),
    "content is null": ("messages", "sft", {"messages": [user(None), bot("A")]}, EMPTY, "user is missing"),
    "content is a list": ("messages", "sft", {"messages": [user([1]), bot("A")]}, UNREADABLE, "a list"),
    "role of a tool": (
        "messages",
        "sft",
        {"messages": [user("a"), {"role": "tool", "content": "x"}]},
        UNREADABLE,
        "'tool'",
    ),
    "no answer": ("messages", "sft", {"messages": [user("a")]}, ROLES, "does not end with an answer"),
    "begins with an answer": ("messages", "sft", {"messages": [bot("A")]}, ROLES, "turn 1"),
    "two questions": ("messages", "sft", {"messages": [user("a"), user("b"), bot("A")]}, ROLES, "turn 2"),
    "system in between": ("messages", "sft", {"messages": [user("a"), system("s"), bot("A")]}, ROLES, "turn 2"),
    "text and messages": (
        "prompt-completion",
        "sft",
        {"prompt": "a", "completion": [bot("A")]},
        UNREADABLE,
        "other a list",
    ),
    "no gsm8k result": ("gsm8k", "sft", {"question": "a", "answer": "13"}, UNREADABLE, "####"),
    "no transcript": ("hh", "sft", {"chosen": "Hello"}, UNREADABLE, "Human"),
    "transcripts without rejected": ("hh", "preference", {"chosen": TRANSCRIPT + "A"}, UNREADABLE, "NoneType"),
    "transcripts of other prompts": (
        "hh",
        "preference",
        {"chosen": "\n\nHuman: a\n\nAssistant: A", "rejected": "\n\nHuman: b\n\nAssistant: B"},
        ROLES,
        "no prompt in common",
    ),
    "transcripts that part early": (
        "hh",
        "preference",
        {"chosen": TRANSCRIPT + "A", "rejected": TRANSCRIPT + "B\n\nHuman: c\n\nAssistant: C"},
        ROLES,
        "before their last",
    ),
    "the same transcript twice": (
        "hh",
        "preference",
        {"chosen": TRANSCRIPT + "A", "rejected": TRANSCRIPT + "A"},
        UNDECIDED,
        "same",
    ),
    "unranked sharegpt for pairs": (
        "sharegpt",
        "preference",
        {"conversations": [human("a"), gpt("A")]},
        UNREADABLE,
        "no chosen",
    ),
    "chosen is rejected": (
        "preference",
        "preference",
        {"prompt": "a", "chosen": "A", "rejected": "A"},
        UNDECIDED,
        "same",
    ),
    "rejected is empty": ("preference", "preference", {"prompt": "a", "chosen": "A", "rejected": ""}, EMPTY, "empty"),
    "chosen is a question": (
        "preference",
        "preference",
        {"prompt": [user("a")], "chosen": [user("b")], "rejected": [bot("B")]},
        ROLES,
        "the prompt is not part",
    ),
    "neither is safer": (
        "saferlhf",
        "preference",
        {"prompt": "a", "response_0": "A", "response_1": "B", "safer_response_id": -1},
        UNDECIDED,
        "neither",
    ),
    "no such response": (
        "saferlhf",
        "preference",
        {"prompt": "a", "response_0": "A", "response_1": "B", "safer_response_id": 2},
        UNREADABLE,
        "not 0 or 1",
    ),
    "the safer is not safe": (
        "saferlhf",
        "sft",
        {"prompt": "a", "response_0": "A", "response_1": "B", "safer_response_id": 0, "is_response_0_safe": False},
        FILTERED,
        "not marked safe",
    ),
}


@pytest.mark.parametrize(("name", "task", "row", "reason", "detail"), BAD.values(), ids=BAD)
def test_unusable_rows_are_rejected_with_a_reason(name, task, row, reason, detail):
    with pytest.raises(RejectedRow) as caught:
        read_row(row, make_layout(name), task)
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def test_columns_and_tags_can_be_named():
    row = {"text": "a", "reply": "A", "instruction": "not this"}
    assert read_row(row, make_layout("alpaca", {"prompt": "text", "response": "reply"}), "sft")["messages"][0] == user(
        "a"
    )
    layout = make_layout(
        "sharegpt", {"messages": "talk"}, {"role": "who", "content": "said", "user": "U", "assistant": "M"}
    )
    row = {"talk": [{"who": "U", "said": "a"}, {"who": "M", "said": "A"}]}
    assert read_row(row, layout, "sft") == {"messages": [user("a"), bot("A")]}


def test_columns_named_alone_hide_the_others():
    row = {"instruction": "unwanted", "prompt": "a", "output": "A"}
    layout = make_layout("alpaca", {"query": "prompt", "response": "output"}, only=True)
    assert read_row(row, layout, "sft") == {"messages": [user("a"), bot("A")]}


def test_unknown_names_are_reported_together_with_suggestions():
    with pytest.raises(ConfigError, match="did you mean 'sharegpt'") as caught:
        make_layout("sharegtp")
    assert "auto, alpaca" in caught.value.fix
    with pytest.raises(ConfigError) as caught:
        make_layout("alpaca", {"promt": "x", "foo": "y"}, {"usr": "z"})
    assert len(caught.value.problems) == 3
    assert "did you mean 'prompt'" in caught.value.problems[0]
    assert "did you mean 'user'" in caught.value.problems[2]


def test_a_format_cannot_be_registered_twice():
    with pytest.raises(ValueError, match="already"):
        register(FORMATS["alpaca"])


def test_a_message_may_hold_its_one_text_as_a_part() -> None:
    def read(*parts: object) -> object:
        return message("user", list(parts))["content"]

    assert read({"type": "text", "text": "hi"}) == "hi"
    assert read({"type": "text", "text": "hi", "image": None, "cache_control": float("nan")}) == "hi"
    for parts in (
        [{"type": "image", "image": "a.png"}, {"type": "text", "text": "what is it ?"}],
        [{"type": "tool_use", "name": "search"}],
        [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        [{"type": "text", "text": "hi", "citations": ["a"]}],
        [{"type": "text", "text": 3}],
        [1],
    ):
        with pytest.raises(RejectedRow):
            read(*parts)


def test_the_developer_is_the_system_and_messages_may_be_json_text() -> None:
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "yo"}]  # fmt: skip
    rows = [{"messages": json.dumps(messages)}]
    layout = detect(rows)
    assert layout.format == "messages"
    assert [entry["role"] for entry in read_row(rows[0], layout, "sft")["messages"]] == ["system", "user", "assistant"]
