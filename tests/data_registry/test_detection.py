"""Detection of formats: what is chosen and said, and what cannot be told."""

import logging

import pytest

from data_registry.core.errors import ConfigError, InputError
from data_registry.formats.detection import detect
from tests.data_registry.messages import bot, user

# Detection


def test_detection_says_what_it_chose(caplog):
    caplog.set_level(logging.INFO, logger="data_registry.formats.detection")
    detect([{"instruction": "a", "output": "A"}])
    assert "'alpaca'" in caplog.text


def test_ambiguous_rows_are_an_error_that_names_the_candidates():
    row = {"prompt": "a", "completion": "A", "messages": [user("b"), bot("B")]}
    with pytest.raises(InputError, match="messages, prompt-completion") as caught:
        detect([row])
    assert "--format messages" in caught.value.fix


def test_of_several_formats_that_fit_none_is_taken_that_would_lose_what_another_reads():
    pairs = {"chosen": [user("a"), bot("A")], "rejected": [user("a"), bot("B")], "messages": [user("a"), bot("A")]}
    for task in (None, "sft", "preference"):
        assert detect([{"prompt": "a", **pairs}], task=task).format == "preference"
    exam = {"question": "a", "options": ["A", "B"], "answer": "B", "answer_index": 1, "cot_content": ""}
    assert detect([exam]).format == "choices"


def test_unknown_rows_are_an_error_that_names_the_columns():
    with pytest.raises(InputError, match="the columns are: foo, bar") as caught:
        detect([{"foo": 1, "bar": 2}], where="x.jsonl")
    assert "--format" in caught.value.fix


def test_detection_goes_by_most_rows_and_by_given_columns():
    odd = {"something": "else"}
    assert detect([odd, *[{"question": "a", "answer": "A"}] * 3]).format == "qa"
    assert detect([{"q": "a", "a": "A"}], columns={"prompt": "q", "completion": "a"}).format == "prompt-completion"
    with pytest.raises(ConfigError, match="no format has the columns"):
        detect([odd], columns={"prompt": "something", "nonsense": "x"})


def test_given_tags_mean_sharegpt():
    layout = detect([{"conversations": [{"who": "x", "value": "y"}]}], tags={"role": "who"})
    assert (layout.format, layout.tags["role"], layout.tags["content"]) == ("sharegpt", "who", "value")
