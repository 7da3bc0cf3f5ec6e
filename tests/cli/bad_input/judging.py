"""Answers that cannot be judged as it is asked for."""

from __future__ import annotations

from pathlib import Path

from tests.cli.bad_input.cases import CONFIGURATION, OUT, Arguments, Place, case

ROW = {"prompt": "how do i bake bread ?", "answer": "mix flour and water ."}


def judge(source: str | Path, *options: str | Path) -> Arguments:
    """A judge command."""
    return ["judge", source, "--out", OUT, *options]


@case(CONFIGURATION, "'answers.csv' does not exist")
def answers_that_are_not_there(place: Place) -> Arguments:
    return judge("answers.csv")


@case(CONFIGURATION, "no column holds the answer; there are: prompt, text.*--set columns.answer=COLUMN")
def answers_without_a_column_of_answers(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [{"prompt": "a", "text": "b"}]))


@case(CONFIGURATION, "columns 'answer' and 'response' may each hold the answer: say which")
def answers_in_two_columns(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [{**ROW, "response": "no ."}]))


@case(CONFIGURATION, "there is no column 'anwser' \\(did you mean 'answer'")
def misspelt_column_of_answers(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [ROW]), "--set", "columns.answer=anwser")


@case(CONFIGURATION, "columns.anser: there is no such field \\(did you mean 'answer'")
def misspelt_field_of_answers(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [ROW]), "--set", "columns.anser=answer")


@case(CONFIGURATION, "one column cannot hold two things")
def one_column_for_prompts_and_answers(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [ROW]), "--set", "columns.answer=prompt", "--set", "columns.prompt=prompt")


@case(CONFIGURATION, "labels that are not understood: 'so-so'.*row|line|a.jsonl:1.*--set labels.WORD=")
def labels_that_nobody_knows(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [{**ROW, "label": "so-so"}]))


@case(CONFIGURATION, "labels.so-so=refusal: it must be one of full_compliance")
def meaning_of_a_label_that_is_none(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [{**ROW, "label": "so-so"}]), "--set", "labels.so-so=refusal")


@case(CONFIGURATION, "a row has no prompt in column 'prompt'.*a.jsonl:2")
def answer_without_a_prompt(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [ROW, {**ROW, "prompt": " "}]))


@case(CONFIGURATION, "no row of .* has an answer in column 'answer'")
def answers_that_are_all_missing(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [{**ROW, "answer": None}, {**ROW, "answer": None}]))


@case(CONFIGURATION, "'answer' is a list, not text.*a.jsonl:1")
def answer_that_is_a_list(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [{**ROW, "answer": ["a", "b"]}]))


@case(CONFIGURATION, "column 'answer' holds half of a surrogate pair.*a.jsonl:2")
def answer_that_is_no_text(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [ROW, {**ROW, "answer": "half \ud83d"}]))


@case(CONFIGURATION, "a row cannot be read.*a.jsonl:2")
def answers_with_a_broken_line(place: Place) -> Arguments:
    return judge(place.file("a.jsonl", '{"prompt": "a", "answer": "b"}\n{"prompt": \n'))


@case(CONFIGURATION, "(?i)is empty")
def answers_of_an_empty_file(place: Place) -> Arguments:
    return judge(place.file("a.jsonl", ""))


@case(CONFIGURATION, "says 'perhaps' of a prompt, which is neither harmful nor harmless")
def group_that_is_none(place: Place) -> Arguments:
    rows = [{**ROW, "kind": "harmful"}, {**ROW, "kind": "perhaps"}]
    return judge(place.rows("a.jsonl", rows), "--set", "columns.group=kind")


@case(CONFIGURATION, "--judge-format is for judge models: add --judge PATH")
def format_without_a_judge_model(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [ROW]), "--judge-format", "harmbench")


@case(CONFIGURATION, "names 'refusal' twice")
def one_judge_twice(place: Place) -> Arguments:
    return judge(place.rows("a.jsonl", [ROW]), "--judge", "refusal", "--judge", "refusal")


@case(CONFIGURATION, "--ignore-labels does not go with --set columns.label")
def labels_that_are_named_and_ignored(place: Place) -> Arguments:
    options = ["--ignore-labels", "--set", "columns.label=l"]
    return judge(place.rows("a.jsonl", [{**ROW, "l": "refusal"}]), *options)


@case(CONFIGURATION, "nobody says whether they are harmful or harmless.*--prompts harmful")
def judge_model_that_has_to_know_the_prompts(place: Place) -> Arguments:
    judges = ["--judge", place.made / "model", "--judge-format", "refusal-classes"]
    return judge(place.rows("a.jsonl", [ROW]), *judges)


@case(CONFIGURATION, "judges answers to harmful prompts, and there are only answers to harmless ones")
def judge_model_of_other_prompts(place: Place) -> Arguments:
    file = place.file("f.yaml", "prompt: '{answer}'\nverdicts: {harmful: {full_refusal: x}}\n")
    judges = ["--judge", place.made / "model", "--judge-format", file, "--prompts", "harmless"]
    return judge(place.rows("a.jsonl", [ROW]), *judges)
