"""Small rows laid out as published data sets are, written by hand; every text has a word of its own to find it by.

A builder is called with the number of the row and two functions: ``w`` gives a text with a new word, ``bad`` one with a
word that must never come to stand in an answer that is learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

Row = dict[str, Any]
Text = Callable[[str], str]
Builder = Callable[[int, Text, Text], Row]


@dataclass(frozen=True)
class Published:
    """A layout.

    Attributes:
        row: makes a row.
        read_as: the format that ``auto`` has to find; empty where the rows have to be refused.
        columns: those that must be named in the refusal, or as not used.
    """

    row: Builder
    read_as: str
    columns: tuple[str, ...] = ()


def rows_of(layout: Published, num_rows: int = 4) -> list[Row]:
    """Rows of a layout, with words that no other row has."""
    numbers = count(100)
    return [
        layout.row(index, lambda text: f"{text} good{next(numbers)}.", lambda text: f"{text} bad{next(numbers)}.")
        for index in range(num_rows)
    ]


def _chat(*turns: tuple[str, str], role: str = "role", content: str = "content", **more: Any) -> list[Row]:
    return [{role: who, content: said, **more} for who, said in turns]


def _sharegpt(i: int, w: Text, bad: Text) -> Row:
    turns = ("human", w("Ask")), ("gpt", w("Tell")), ("human", w("Then")), ("gpt", w("Say"))
    return {"id": f"x{i}", "conversations": _chat(*turns, role="from", content="value")}


def _sharegpt_tools(i: int, w: Text, bad: Text) -> Row:
    turns = (("human", w("Ask")), ("function_call", bad("{}")), ("observation", w("Result")), ("gpt", w("Say")))
    return {"conversations": _chat(*turns, role="from", content="value"), "tools": w("[{}]")}


def _saferlhf(i: int, w: Text, bad: Text) -> Row:
    better = i % 2
    said = [w("One"), w("Two")]
    said[1 - better] = bad("Other")
    judged: Row = {}
    for index, answer in enumerate(said):
        judged |= {
            f"response_{index}": answer,
            f"response_{index}_source": "Alpaca",
            f"is_response_{index}_safe": index == better,
            f"response_{index}_harm_category": {"Violence": index != better},
            f"response_{index}_severity_level": 3 * (index != better),
        }
    return {
        "prompt": w("Ask"),
        "prompt_source": "x",
        **judged,
        "better_response_id": better,
        "safer_response_id": better,
    }


def _beavertails(i: int, w: Text, bad: Text) -> Row:
    safe = i % 2 == 0
    said = w("Say") if safe else bad("Harm")
    return {"prompt": w("Ask"), "response": said, "category": {"hate": not safe}, "is_safe": safe}


def _wildchat(i: int, w: Text, bad: Text) -> Row:
    toxic = i == 1
    turns = ("user", w("Ask")), ("assistant", (bad if toxic else w)("Say"))
    return {
        "conversation_hash": f"h{i}",
        "model": "m",
        "timestamp": "2024-01-01T00:00:00",
        "conversation": _chat(*turns, language="English", redacted=False, toxic=toxic),
        "turn": 1,
        "language": "English",
        "openai_moderation": [{"flagged": toxic, "categories": {"hate": toxic}}] * 2,
        "toxic": toxic,
        "redacted": False,
    }


def _lmsys(i: int, w: Text, bad: Text) -> Row:
    flagged = i == 2
    turns = ("user", w("Ask")), ("assistant", (bad if flagged else w)("Say"))
    moderation = [{"flagged": flagged, "category_scores": {"hate": 0.1}}] * 2
    return {"conversation_id": f"{i}", "conversation": _chat(*turns), "turn": 1, "openai_moderation": moderation}


def _tree(i: int, w: Text, bad: Text) -> Row:
    answer = {"text": w("Say"), "role": "assistant", "replies": []}
    return {"message_tree_id": "t", "prompt": {"text": w("Ask"), "role": "prompter", "replies": [answer]}}


def _pair(i: int, w: Text, bad: Text, question: str = "prompt", **more: Any) -> Row:
    return {question: w("Ask"), "chosen": w("Good"), "rejected": bad("Poor"), **more}


def _ultrafeedback(i: int, w: Text, bad: Text) -> Row:
    asked = w("Ask")
    chosen, rejected = (
        _chat(("user", asked), ("assistant", w("Good"))),
        _chat(("user", asked), ("assistant", bad("Poor"))),
    )
    scores = {"score_chosen": 8.0, "score_rejected": 4.0}
    return {"prompt": asked, "prompt_id": f"{i}", "chosen": chosen, "rejected": rejected, "messages": chosen, **scores}


def _hh(i: int, w: Text, bad: Text) -> Row:
    asked = f"\n\nHuman: {w('Ask')}\n\nAssistant: "
    return {"chosen": asked + w("Good"), "rejected": asked + bad("Poor")}


def _red_team(i: int, w: Text, bad: Text) -> Row:
    return {
        "min_harmlessness_score_transcript": -1.5,
        "num_params": "52B",
        "transcript": f"\n\nHuman: {bad('Attack')}\n\nAssistant: {bad('Harm')}",
        "rating": 4.0,
        "task_description": w("They wanted"),
    }


def _kto(i: int, w: Text, bad: Text) -> Row:
    said = w("Good") if i % 2 else bad("Poor")
    return {"prompt": _chat(("user", w("Ask"))), "completion": _chat(("assistant", said)), "label": bool(i % 2)}


def _labelled(name: str, poor: Any, fine: Any) -> Builder:
    def row(i: int, w: Text, bad: Text) -> Row:
        return {"prompt": w("Ask"), "response": (bad if i == 1 else w)("Say"), name: poor if i == 1 else fine}

    return row


def _orca_argilla(i: int, w: Text, bad: Text) -> Row:
    more = {"system": w("Be"), "generations": [w("a"), w("b")], "rating": [8.0, 6.0], "status": "unchanged"}
    return {"input": w("Ask"), "chosen": w("Good"), "rejected": bad("Poor"), **more}


def _wildguard(i: int, w: Text, bad: Text) -> Row:
    return {
        "prompt": w("Ask"),
        "adversarial": False,
        "response": (bad if i == 1 else w)("Say"),
        "prompt_harm_label": "harmful",
        "response_refusal_label": "refusal",
        "response_harm_label": "harmful" if i == 1 else "unharmful",
    }


def _exam(choices: Any, answer: Any, question: str = "question", name: str = "choices", key: str = "answer") -> Builder:
    def row(i: int, w: Text, bad: Text) -> Row:
        return {question: w("Which"), name: choices(w), key: answer, "subject": "law"}

    return row


def _texts(w: Text) -> list[str]:
    return [w("One"), w("Two"), w("Three"), w("Four")]


def _gemini(i: int, w: Text, bad: Text) -> Row:
    said = [{"role": "user", "parts": [{"text": w("Ask")}]}, {"role": "model", "parts": [{"text": w("Say")}]}]
    return {"systemInstruction": {"parts": [{"text": w("Be")}]}, "contents": said}


def _openai_preference(i: int, w: Text, bad: Text) -> Row:
    asked = {"messages": _chat(("user", w("Ask"))), "tools": [], "parallel_tool_calls": True}
    return {
        "input": asked,
        "preferred_output": _chat(("assistant", w("Good"))),
        "non_preferred_output": _chat(("assistant", bad("Poor"))),
    }


def _tool_calls(i: int, w: Text, bad: Text) -> Row:
    call = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": w("{}")}}]}
    answer = {"role": "tool", "content": w("Result"), "tool_call_id": "1"}
    return {"messages": [*_chat(("user", w("Ask"))), call, answer, *_chat(("assistant", w("Say")))]}


def _parts(i: int, w: Text, bad: Text) -> Row:
    turns = [("user", w("Ask")), ("assistant", w("Say"))]
    return {"messages": [{"role": who, "content": [{"type": "text", "text": said}]} for who, said in turns]}


def _weighted(i: int, w: Text, bad: Text) -> Row:
    turns = _chat(("user", w("Ask")), ("assistant", bad("Poor")), ("user", w("Again")), ("assistant", w("Good")))
    turns[1]["weight"], turns[3]["weight"] = 0, 1
    return {"messages": turns}


def _plain(**columns: str) -> Builder:
    """Rows with a text in each of these columns."""

    def row(i: int, w: Text, bad: Text) -> Row:
        return {name: w(said) for name, said in columns.items()}

    return row


LAYOUTS: dict[str, Published] = {
    "sharegpt": Published(_sharegpt, "sharegpt"),
    "sharegpt with tools": Published(_sharegpt_tools, "", ("tools",)),
    "alpaca": Published(_plain(instruction="Do", input="this", output="Done"), "alpaca"),
    "alpaca with text": Published(lambda i, w, b: {"instruction": w("Do"), "input": "", "output": w("Done")}, "alpaca"),
    "dolly": Published(
        lambda i, w, b: {
            **{name: w(name) for name in ("instruction", "context", "response")},
            "category": "closed_qa",
        },
        "prompt-response",
    ),
    "prompt and response": Published(_plain(prompt="Ask", response="Say"), "prompt-response"),
    "instruction and response": Published(_plain(instruction="Ask", response="Say"), "prompt-response"),
    "input and output": Published(_plain(input="Ask", output="Say"), "prompt-response"),
    "question and response": Published(_plain(question="Ask", response="Say"), "qa"),
    "openorca": Published(_plain(system_prompt="Be", question="Ask", response="Say"), "qa"),
    "open platypus": Published(_plain(input="", instruction="Ask", output="Say"), "alpaca"),
    "metamath": Published(_plain(query="Ask", response="Say", original_question="First"), "qa", ("original_question",)),
    "two answers": Published(_plain(prompt="Ask", response="Say", answer="Or"), "", ("response", "answer")),
    "ultrafeedback binarized": Published(_ultrafeedback, "preference"),
    "hh": Published(_hh, "hh"),
    "red team attempts": Published(_red_team, "", ("transcript",)),
    "saferlhf": Published(_saferlhf, "saferlhf"),
    "beavertails": Published(_beavertails, "", ("is_safe",)),
    "helpsteer": Published(
        lambda i, w, b: {"prompt": w("Ask"), "response": b("Say"), "helpfulness": i, "correctness": 1, "verbosity": 2},
        "",
        ("helpfulness",),
    ),
    "helpsteer 2 preference": Published(
        lambda i, w, b: {"prompt": w("Ask"), "response_1": w("A"), "response_2": b("B"), "preference_strength": -2}, ""
    ),
    "scored": Published(lambda i, w, b: {"instruction": w("Ask"), "response": b("Say"), "score": 1}, "", ("score",)),
    "wildguard": Published(_wildguard, "prompt-response", ("response_refusal_label",)),
    "aegis": Published(_labelled("response_label", "unsafe", "safe"), "prompt-response"),
    "toxic answers": Published(_labelled("response_toxic", True, False), "prompt-response"),
    "final label": Published(_labelled("final_label", "1_full_compliance", "2_full_refusal"), "", ("final_label",)),
    "wildchat": Published(_wildchat, "", ("openai_moderation",)),
    "lmsys": Published(_lmsys, "", ("openai_moderation",)),
    "openassistant tree": Published(_tree, ""),
    "openassistant messages": Published(_plain(message_id="m", parent_id="p", text="Say", role="prompter"), ""),
    "gsm8k": Published(lambda i, w, b: {"question": w("How"), "answer": f"{w('So')}\n#### {i}"}, "gsm8k"),
    "mmlu": Published(_exam(_texts, 2), "choices"),
    "mmlu-pro": Published(
        lambda i, w, b: {
            "question": w("Which"),
            "options": _texts(w),
            "answer": "C",
            "answer_index": 2,
            "cot_content": w("So"),
            "src": "x",
        },
        "choices",
        ("cot_content",),
    ),
    "arc": Published(
        _exam(lambda w: {"text": _texts(w), "label": ["A", "B", "C", "D"]}, "B", key="answerKey"), "choices"
    ),
    "c-eval": Published(
        lambda i, w, b: {"question": w("Which"), **{name: w(name) for name in "ABCD"}, "answer": "B"}, "", ("A",)
    ),
    "hellaswag": Published(
        lambda i, w, b: {"ctx": w("So"), "endings": [w("a"), b("b")], "label": "0", "activity_label": w("Act")}, ""
    ),
    "truthfulqa": Published(
        lambda i, w, b: {
            "question": w("Is"),
            "best_answer": w("Yes"),
            "correct_answers": [w("Yes")],
            "incorrect_answers": [b("No")],
        },
        "",
    ),
    "kto": Published(_kto, "prompt-completion"),
    "orca dpo": Published(lambda i, w, b: _pair(i, w, b, "question", system=w("Be")), "preference"),
    "orca dpo of argilla": Published(_orca_argilla, "preference", ("generations",)),
    "openrlhf": Published(lambda i, w, b: _pair(i, w, b, "input"), "preference"),
    "query pairs": Published(lambda i, w, b: _pair(i, w, b, "query"), "preference"),
    "nectar": Published(
        lambda i, w, b: {
            "prompt": f"\n\nHuman: {w('Ask')}\n\nAssistant: ",
            "answers": [{"answer": w("A"), "rank": 1.0}, {"answer": b("B"), "rank": 2.0}],
        },
        "",
    ),
    "capybara": Published(lambda i, w, b: {"source": "s", "conversation": [{"input": w("Q"), "output": w("A")}]}, ""),
    "tulu 3": Published(
        lambda i, w, b: {"id": f"{i}", "messages": _chat(("user", w("Q")), ("assistant", w("A"))), "source": "s"},
        "messages",
    ),
    "openai fine-tuning": Published(
        lambda i, w, b: {"messages": _chat(("system", w("Be")), ("user", w("Q")), ("assistant", w("A")))}, "messages"
    ),
    "openai weights": Published(_weighted, "", ("messages.weight",)),
    "openai parts": Published(_parts, "messages"),
    "openai preference": Published(_openai_preference, ""),
    "tool calls without content": Published(_tool_calls, "", ("messages.tool_calls",)),
    "gemini": Published(_gemini, "", ("contents",)),
    "cohere": Published(
        lambda i, w, b: {"messages": _chat(("System", w("Be")), ("User", w("Q")), ("Chatbot", w("A")))}, "messages"
    ),
    "anthropic": Published(
        lambda i, w, b: {"system": w("Be"), "messages": _chat(("user", w("Q")), ("assistant", w("A")))}, "messages"
    ),
    "lima": Published(lambda i, w, b: {"conversations": [w("Q"), w("A")], "source": "s"}, ""),
    "thoughts": Published(
        lambda i, w, b: {
            "messages": [
                *_chat(("user", w("Q"))),
                {"role": "assistant", "reasoning_content": w("Hm"), "content": w("A")},
            ]
        },
        "",
        ("messages.reasoning_content",),
    ),
}
"""Layouts by the name of who uses them."""
