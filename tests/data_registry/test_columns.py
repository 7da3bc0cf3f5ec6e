"""What columns and keys of messages say beside the texts: taken in, refused, left out, or named; never lost."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from data_registry.formats.meanings import IGNORED, MEANINGS, MESSAGE_MEANINGS, Kind
from data_registry.formats.registry import make_layout
from data_registry.preparing.reading import Outcome, RowReader
from data_registry.schema import MEANING, ROLES, UNDESIRED, UNREADABLE
from data_registry.sources.base import Chunk
from tests.data_registry.messages import bot, system, user

NAN = float("nan")


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str, **marks: Any) -> dict[str, Any]:
    return {"from": "gpt", "value": text, **marks}


def read(
    row: dict[str, Any], name: str, task: str = "sft", *, only: dict[str, str] | None = None, **options: Any
) -> Outcome:
    layout = make_layout(name, only, only=only is not None)
    return RowReader(layout, task, **options)(Chunk("x", [1], "row", [row]))  # type: ignore[arg-type]


def kept(outcome: Outcome) -> Any:
    assert not outcome.rejected, outcome.rejected
    (row,) = outcome.rows.to_pylist()
    return row["messages"] if "messages" in row else (row["prompt"], row["chosen"], row["rejected"])


TALK = [user("a"), bot("A"), user("b"), bot("B")]
ROWS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "alpaca": ("alpaca", "sft", {"instruction": "a", "output": "A"}),
    "messages": ("messages", "sft", {"messages": TALK}),
    "sharegpt": ("sharegpt", "sft", {"conversations": [human("a"), gpt("A")]}),
    "prompt-completion": ("prompt-completion", "sft", {"prompt": "a", "completion": "A"}),
    "prompt-completion of messages": ("prompt-completion", "sft", {"prompt": TALK[:3], "completion": TALK[3:]}),
    "hh": ("hh", "preference", {"chosen": "\n\nHuman: a\n\nAssistant: A", "rejected": "\n\nHuman: a\n\nAssistant: B"}),
    "gsm8k": ("gsm8k", "sft", {"question": "a", "answer": "A\n#### 1"}),
    "qa": ("qa", "sft", {"question": "a", "answer": "A"}),
    "choices": ("choices", "sft", {"question": "a", "choices": ["x", "y"], "answer": 1}),
    "preference": ("preference", "preference", {"prompt": "a", "chosen": "A", "rejected": "B"}),
    "preference of messages": (
        "preference",
        "preference",
        {"prompt": [user("a")], "chosen": [bot("A")], "rejected": [bot("B")]},
    ),
    "saferlhf": (
        "saferlhf",
        "preference",
        {"prompt": "a", "response_0": "B", "response_1": "A", "safer_response_id": 1},
    ),
}
TEXTS = ("alpaca", "prompt-completion", "gsm8k", "qa", "choices", "preference", "saferlhf")


# Every name, in every format


def test_no_column_with_a_value_is_lost_without_a_word() -> None:
    # Each name with one of the values, another for every format.
    rng = random.Random(0)
    names = [*MEANINGS, "note", "score_chosen", "Some Column", "toolCalls", "ContextString"]
    values = ["some words", "2", 2, 0.5, ["a", "b"], {"a": 1}, [["q", "A"]], [user("q"), bot("A")]]
    for key, (layout, task, row) in ROWS.items():
        plain = kept(read(row, layout, task))
        for name in names:
            if name in row or (layout, name) in (
                ("saferlhf", "better_response_id"),
                ("sharegpt", "chosen"),
                ("sharegpt", "rejected"),
            ):
                continue
            value = rng.choice(values)
            outcome = read({**row, name: value}, layout, task)
            told = outcome.unused[name] or outcome.rejected
            assert told or kept(outcome) != plain, (key, name, value)


def test_columns_without_a_value_change_nothing_and_are_not_named() -> None:
    nothing: list[Any] = [None, NAN, "", " ", [], {}, [None], {"a": None}, "nan"]
    for key, (layout, task, row) in ROWS.items():
        plain = kept(read(row, layout, task))
        for number, name in enumerate([*MEANINGS, "note", "id"]):
            if name in row or (layout, name) in (("sharegpt", "chosen"), ("sharegpt", "rejected")):
                continue
            outcome = read({**row, name: nothing[number % len(nothing)]}, layout, task)
            assert (kept(outcome), outcome.unused) == (plain, {}), (key, name)


def test_columns_that_only_describe_a_row_are_not_named() -> None:
    for layout, task, row in ROWS.values():
        others = dict.fromkeys([*sorted(IGNORED), "prompt_id", "Data Source", "createdAt"], "x")
        assert not read({**others, **row}, layout, task).unused


# What was asked


SYSTEM, EARLIER = [system("s")], [user("q"), bot("A0")]


@pytest.mark.parametrize("key", TEXTS)
def test_what_belongs_to_the_question_is_taken_in(key: str) -> None:
    layout, task, row = ROWS[key]

    def asked(**columns: Any) -> Any:
        found = kept(read({**row, **columns}, layout, task))
        return found[0] if task == "preference" else found[:-1]

    (question,) = asked()
    assert asked(system_prompt="s") == [*SYSTEM, question]
    assert asked(system="s", system_prompt=NAN) == [*SYSTEM, question]
    assert asked(system="", system_prompt="s") == [*SYSTEM, question]
    for history in ([["q", "A0"]], EARLIER, [human("q"), gpt("A0")], json.dumps([["q", "A0"]])):
        assert asked(history=history) == [*EARLIER, question]
    text = question["content"]
    assert asked(context="c\n") == [user(f"c\n\n{text}")]
    more = asked(input="i")[0]["content"]
    assert more.startswith("a\ni")
    assert asked(system="s", history=[["q", "A0"]], context="c", input="i") == [
        *SYSTEM,
        *EARLIER,
        user(f"c\n\n{more}"),
    ]


def test_llama_factorys_preference_rows_keep_their_input() -> None:
    row = {"instruction": "Say in Latin.", "input": "tree", "chosen": "arbor", "rejected": "mensa"}
    expected = ([user("Say in Latin.\ntree")], [bot("arbor")], [bot("mensa")])
    assert kept(read(row, "preference", "preference")) == expected
    # An entry that names columns has no others; what it leaves out is named.
    columns = {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}
    outcome = read(row, "preference", "preference", only=columns)
    assert (outcome.unused, kept(outcome)[0]) == ({"input": 1}, [user("Say in Latin.")])


QUESTIONS = {
    "history in words": ("qa", {"history": "We spoke before."}, UNREADABLE, "history"),
    "a context in parts": ("qa", {"context": ["c", "d"]}, UNREADABLE, "context"),
    "a context of another name": ("qa", {"knowledge": "k"}, MEANING, "--set columns.context=knowledge"),
    "two contexts": ("qa", {"context": "c", "passage": "p"}, MEANING, "'passage'"),
    "two system messages": ("qa", {"system": "s", "system_prompt": "t"}, MEANING, "'system_prompt'"),
    "two system messages of a conversation": (
        "messages",
        {"messages": [system("s"), *TALK], "system": "t"},
        ROLES,
        "system",
    ),
    "history beside a conversation": ("messages", {"history": [["q", "A"]]}, MEANING, "earlier turns"),
    "input beside messages": ("prompt-completion of messages", {"input": "i"}, MEANING, "query"),
    "context beside messages": ("preference of messages", {"context": "c"}, MEANING, "context"),
}


@pytest.mark.parametrize(("key", "columns", "reason", "says"), QUESTIONS.values(), ids=QUESTIONS)
def test_parts_of_a_question_without_a_place_are_refused(
    key: str, columns: dict[str, Any], reason: str, says: str
) -> None:
    layout, task, row = ROWS[key]
    (rejection,) = read({**row, **columns}, layout, task).rejected
    assert rejection.reason == reason
    assert says in rejection.detail


def test_the_same_text_twice_is_no_loss() -> None:
    outcome = read({"messages": [system("s"), *TALK], "system": "s", "first": "q"}, "messages")
    assert kept(outcome) == [system("s"), *TALK]
    outcome = read({"prompt": "a", "chosen": "A", "rejected": "B", "response": "A"}, "preference", "preference")
    assert not outcome.unused
    # UltraChat and its kin repeat the first question.
    assert not read({"prompt": "a", "messages": TALK}, "messages").unused
    assert read({"prompt": "other", "messages": TALK}, "messages").unused == {"prompt": 1}


def test_a_prompt_beside_whole_conversations_is_part_of_them() -> None:
    def pair(prompt: Any, **columns: Any) -> Outcome:
        row = {"prompt": prompt, "chosen": [*TALK[:3], bot("B")], "rejected": [*TALK[:3], bot("C")], **columns}
        return read(row, "preference", "preference")

    for prompt in ("a", " b", [user("a")], TALK[:3]):
        assert kept(pair(prompt)) == (TALK[:3], [bot("B")], [bot("C")])
    assert kept(pair([system("s"), *TALK[:3]]))[0] == [system("s"), *TALK[:3]]
    assert kept(pair("a", system="s"))[0] == [system("s"), *TALK[:3]]
    for prompt, columns in (
        ("other", {}),
        ([user("other")], {}),
        ("a", {"input": "i"}),
        ([user("a")], {"context": "c"}),
    ):
        assert pair(prompt, **columns).rejected


def test_a_rejected_answer_beside_a_conversation_is_half_of_a_pair() -> None:
    row = {"messages": TALK, "rejected_response": "C"}
    (rejection,) = read(row, "messages").rejected
    assert (rejection.reason, "rejected_response" in rejection.detail) == (MEANING, True)
    layout = make_layout("preference", {"chosen": "messages", "rejected": "rejected_response"})
    outcome = RowReader(layout, "preference")(Chunk("x", [1], "row", [row]))
    assert kept(outcome) == (TALK[:3], [bot("B")], [bot("C")])


# Answers that must not be learnt


@pytest.mark.parametrize("key", [key for key, (_, task, _) in ROWS.items() if task == "sft" and key != "choices"])
def test_an_undesired_answer_is_never_kept(key: str) -> None:
    layout, task, row = ROWS[key]
    for name in ("label", "kto_tag", "KTO Tag", "desirable", "is_desired"):
        for bad in (False, 0, 0.0, -1, "false", "False", "FALSE ", "0", "no", "bad", "rejected", "undesirable"):
            for options in ({}, {"where": {name: str(bad)}}):
                outcome = read({**row, name: bad}, layout, task, **options)
                assert outcome.rows.num_rows == 0
                assert [rejection.reason for rejection in outcome.rejected] == [UNDESIRED]
        for good in (True, 1, 1.0, "true", "True", "1", "good", "chosen"):
            assert read({**row, name: good}, layout, task).rows.num_rows == 1
        for unknown in ("toxic", 3, 0.5, [True]):
            (rejection,) = read({**row, name: unknown}, layout, task).rejected
            assert rejection.reason == MEANING
            assert read({**row, name: unknown}, layout, task, where={name: str(unknown)}).rows.num_rows == 1


def test_marks_of_bad_answers_and_doubtful_marks() -> None:
    row = {"question": "a", "answer": "A"}
    assert read({**row, "hallucination": "yes"}, "qa").rejected[0].reason == UNDESIRED
    assert kept(read({**row, "hallucination": "no"}, "qa"))
    # Whether the question or the answer is unsafe, a person has to say.
    (rejection,) = read({**row, "is_safe": False}, "qa").rejected
    assert (rejection.reason, "--set where.is_safe" in rejection.detail) == (MEANING, True)
    assert kept(read({**row, "is_safe": True}, "qa"))
    assert read({**row, "is_safe": "partly"}, "qa").unused == {"is_safe": 1}


def test_the_safer_answer_is_learnt_only_where_it_is_marked_safe() -> None:
    row = ROWS["saferlhf"][2]
    for mark, number in ((True, 1), ("True", 1), (1, 1), (False, 0), ("no", 0), ("unsafe", 0), (2, 0)):
        assert read({**row, "is_response_1_safe": mark}, "saferlhf").rows.num_rows == number


# Weights and marks of turns


MASKED = {
    "weight 0": ("weight", 0, MEANING),
    "weight as text": ("weight", "0", MEANING),
    "half a weight": ("weight", 0.5, MEANING),
    "train false": ("train", False, MEANING),
    "train false as text": ("train", "false", MEANING),
    "loss false": ("loss", False, MEANING),
    "weight 1": ("weight", 1, None),
    "train true": ("train", True, None),
    "no weight": ("weight", None, None),
}


@pytest.mark.parametrize(("key", "value", "reason"), MASKED.values(), ids=MASKED)
def test_a_turn_that_must_not_be_learnt_is_not(key: str, value: Any, reason: str | None) -> None:
    marked = [user("a"), {**bot("A"), key: value}, user("b"), bot("B")]
    sharegpt = [human("a"), gpt("A", **{key: value}), human("b"), gpt("B")]
    for row, layout in (
        ({"messages": marked}, "messages"),
        ({"messages": json.dumps(marked)}, "messages"),
        ({"conversations": sharegpt}, "sharegpt"),
        ({"prompt": marked[:3], "completion": marked[3:]}, "prompt-completion"),
        ({"chosen": marked, "rejected": [*marked[:3], bot("C")]}, "preference"),
    ):
        found = [rejection.reason for rejection in read(row, layout).rejected]
        assert found == ([] if reason is None else [reason])


def test_marks_of_turns_that_are_not_learnt_anyway_are_no_loss() -> None:
    marked = [{**user("a"), "train": False}, bot("A"), {**user("b"), "weight": 0}, bot("B")]
    assert kept(read({"messages": marked}, "messages")) == TALK
    asked = [user("a"), {**bot("A"), "weight": 0}, user("b")]
    row = {"prompt": asked, "chosen": [bot("B")], "rejected": [bot("C")]}
    assert kept(read(row, "preference", "preference"))[0] == TALK[:3]
    assert read({"messages": [{**user("a"), "train": True}, bot("A")]}, "messages").unused == {"messages.train": 1}


def test_a_row_of_which_nothing_is_to_be_learnt_is_left_out() -> None:
    nothing = [user("a"), {**bot("A"), "weight": 0}]
    assert read({"messages": nothing}, "messages").rejected[0].reason == UNDESIRED
    for name, value in (("weight", 0), ("train", False), ("sample_weight", "0")):
        assert read({"messages": TALK, name: value}, "messages").rejected[0].reason == UNDESIRED
    assert read({"messages": TALK, "weight": 0.5}, "messages").rejected[0].reason == MEANING
    assert kept(read({"messages": TALK, "weight": 1.0}, "messages")) == TALK


def test_tool_calls_and_other_keys_of_messages_are_refused_or_named() -> None:
    calls = [{"type": "function", "function": {"name": "weather"}}]
    for key, meaning in MESSAGE_MEANINGS.items():
        if meaning.kind is Kind.REFUSED:
            marked = [user("a"), {**bot("A"), key: calls}]
            for row, layout, task in (
                ({"messages": marked}, "messages", "sft"),
                ({"chosen": marked, "rejected": [user("a"), bot("B")]}, "preference", "preference"),
            ):
                (rejection,) = read(row, layout, task).rejected
                assert (rejection.reason, f"'messages.{key}'" in rejection.detail) == (MEANING, True)
            empty = [user("a"), {**bot("A"), key: []}]
            assert kept(read({"messages": empty}, "messages")) == TALK[:2]
    named = [{**user("a"), "name": "Ann", "id": 4}, {**bot("A"), "name": "Bo", "note": None}]
    assert read({"messages": named}, "messages").unused == {"messages.name": 1}


def test_rows_that_offer_tools_or_pictures_are_refused_and_those_without_are_not() -> None:
    for name in ("tools", "functions", "images", "audios", "videos"):
        for value in ([{"name": "x"}], '[{"name": "x"}]', "x.png"):
            (rejection,) = read({"messages": TALK, name: value}, "messages").rejected
            assert rejection.reason == MEANING
        for value in ([], "[]", None, NAN, ""):
            assert kept(read({"messages": TALK, name: value}, "messages")) == TALK


def test_margins_are_refused() -> None:
    row = ROWS["preference"][2]
    for name in ("margin", "reward_margin", "my_margin"):
        (rejection,) = read({**row, name: 0.7}, "preference", "preference").rejected
        assert (rejection.reason, f"--ignore-columns {name}" in rejection.detail) == (MEANING, True)
        assert kept(read({**row, name: 0}, "preference", "preference"))


# I know


def test_names_to_be_ignored_are_neither_named_nor_refused_nor_taken_in() -> None:
    row = {"messages": [user("a"), {**bot("A"), "weight": 0, "name": "x"}], "note": "n", "label": "odd", "tools": ["t"]}
    outcome = read(row, "messages", ignore=("messages.weight", "name", "note", "label", "tools", "nowhere"))
    assert (kept(outcome), outcome.unused) == (TALK[:2], {})
    assert outcome.ignored == {"messages.weight", "name", "note", "label", "tools"}
    outcome = read({"question": "a", "answer": "A", "context": "c"}, "qa", ignore=("context",))
    assert kept(outcome) == TALK[:2]


def test_reading_does_not_change_the_row() -> None:
    for layout, task, row in ROWS.values():
        before = copy.deepcopy(row)
        read(row, layout, task)
        assert row == before


def test_many_different_sets_of_columns_do_not_fill_the_memory() -> None:
    rows = [{"question": "a", "answer": f"A {number}", f"column {number}": 1} for number in range(3000)]
    reader = RowReader(make_layout("qa"), "sft")
    assert len(reader(Chunk("x", range(3000), "row", rows)).unused) == 3000  # type: ignore[arg-type]
    assert len(reader._columns._columns) <= 1000
