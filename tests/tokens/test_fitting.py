"""Rows that a model has no room for are refused or left out, and never cut without a word or trained on."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest

from data_registry.core.errors import InputError
from data_registry.testbed import MODEL_DIR
from pipelines.models.limits import Limits
from pipelines.models.reference import resolve_model
from pipelines.tokens.fitting import Bounds, check_token_ids, encode_fitting, encode_fitting_pairs, rows_that_fit
from pipelines.tokens.tokenizer import load_source_tokenizer, load_tokenizer

# The template writes three marks around a question and its answer.
MARKS = 3


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(MODEL_DIR)


def conversation(num_tokens: int) -> dict[str, Any]:
    words = "how " * (num_tokens - MARKS - 1)
    return {"messages": [{"role": "user", "content": words.strip()}, {"role": "assistant", "content": "sorry"}]}


def pair(chosen: int, rejected: int) -> dict[str, Any]:
    """A pair whose prompt with each of its completions has so many tokens."""
    prompt = [{"role": "user", "content": "how"}]
    sides = {"chosen": chosen, "rejected": rejected}
    told = {
        name: [{"role": "assistant", "content": " ".join([name, *["how"] * (number - MARKS - 2)])}]
        for name, number in sides.items()
    }
    return {"prompt": prompt, **told}


def rows(*lengths: int) -> datasets.Dataset:
    return datasets.Dataset.from_list([conversation(length) for length in lengths])


def lengths_of(encoded: Any) -> list[int]:
    return [len(row["input_ids"]) for row in encoded]


def test_rows_longer_than_the_positions_are_refused(tokenizer: Any) -> None:
    bounds = Bounds(100, limits=Limits(600, 10))
    assert lengths_of(encode_fitting(rows(5, 10), tokenizer, bounds)) == [5, 10]
    with pytest.raises(InputError, match="2 of 4 rows are longer than the 10 positions of the model") as caught:
        encode_fitting(rows(10, 11, 9, 30), tokenizer, bounds, name="training rows")
    assert caught.value.where == "training rows, row 1 has 11 tokens"
    assert caught.value.fix == "--max-length 10 cuts them, and --drop-too-long leaves them out"


def test_what_is_said_to_do_helps(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(600, 10)
    cut = encode_fitting(rows(10, 11, 9), tokenizer, Bounds(10, limits=limits))
    assert lengths_of(cut) == [10, 10, 9]
    with caplog.at_level(logging.WARNING):
        left = encode_fitting(rows(10, 11, 9), tokenizer, Bounds(100, True, limits), name="data")
    assert lengths_of(left) == [10, 9]
    assert "1 of 3 rows are longer than 10 tokens (the model's positions) and are left out" in caplog.text
    # Two data sets that are put together have the same columns.
    assert left.features == cut.features


def test_rows_that_would_be_cut_are_left_out_too(tokenizer: Any) -> None:
    assert lengths_of(encode_fitting(rows(5, 9, 8), tokenizer, Bounds(8))) == [5, 8, 8]
    assert lengths_of(encode_fitting(rows(5, 9, 8), tokenizer, Bounds(8, drop_too_long=True))) == [5, 8]
    # This one has no answer within the length.
    with pytest.raises(InputError, match="no trained token"):
        encode_fitting(rows(5, 30), tokenizer, Bounds(8))
    assert lengths_of(encode_fitting(rows(5, 30), tokenizer, Bounds(8, drop_too_long=True))) == [5]


def test_no_row_is_left(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="no row is left: all 2 are longer than 8 tokens"):
        encode_fitting(rows(9, 10), tokenizer, Bounds(8, drop_too_long=True))
    with pytest.raises(InputError, match="no pair is left"):
        encode_fitting_pairs(datasets.Dataset.from_list([pair(6, 9)]), tokenizer, Bounds(8, True), name="pairs")


@pytest.mark.parametrize("sides", [(6, 11), (11, 6), (12, 12)])
def test_both_sides_of_a_pair_count(tokenizer: Any, sides: tuple[int, int]) -> None:
    data = datasets.Dataset.from_list([pair(10, 9), pair(*sides), pair(7, 10)])
    limits = Limits(600, 10)
    with pytest.raises(InputError, match="1 of 3 pairs are longer than the 10 positions") as caught:
        encode_fitting_pairs(data, tokenizer, Bounds(100, limits=limits), name="the pairs")
    assert caught.value.where == f"the pairs, row 1 has {max(sides)} tokens"
    kept = encode_fitting_pairs(data, tokenizer, Bounds(100, True, limits), name="the pairs")
    assert [len(row["prompt_ids"]) + len(row["chosen_ids"]) for row in kept] == [10, 7]


def test_what_fits_or_has_no_limit_is_kept_whole() -> None:
    assert rows_that_fit([3, 8, 5], Bounds(8, True, Limits(9, 8)), name="") is None
    assert rows_that_fit([3, 8, 5], Bounds(8), name="") is None
    assert rows_that_fit([3, 8, 5], Bounds(8, True, Limits(9, 5)), name="") == [0, 2]


def test_token_ids_beyond_the_embeddings(tokenizer: Any) -> None:
    highest = max(max(row["input_ids"]) for row in encode_fitting(rows(5), tokenizer, Bounds(9)))
    message = f"the tokenizer gives token {highest}, and the model has embeddings for {highest} only"
    encode_fitting(rows(5), tokenizer, Bounds(9, limits=Limits(highest + 1)))
    with pytest.raises(InputError, match=message) as caught:
        encode_fitting(rows(5), tokenizer, Bounds(9, limits=Limits(highest)))
    assert repr(tokenizer.convert_ids_to_tokens(highest)) in str(caught.value.where)
    with pytest.raises(InputError, match="embeddings for 2 only"):
        encode_fitting_pairs(
            datasets.Dataset.from_list([pair(6, 6)]), tokenizer, Bounds(9, limits=Limits(2)), name="pairs"
        )
    with pytest.raises(InputError, match="makes no token"):
        check_token_ids([[1], []], 9, tokenizer)
    check_token_ids([[10**6]], None, tokenizer)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in MODEL_DIR.iterdir():
        if file.suffix in (".json", ".jinja") and file.name != "testbed.json":
            shutil.copyfile(file, folder / file.name)
    return folder


def test_a_padding_token_without_an_embedding_pads_no_batch(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    added = load_tokenizer(model)
    added.add_special_tokens({"pad_token": "[PAD]"})
    added.save_pretrained(model)
    with caplog.at_level(logging.WARNING):
        tokenizer = load_source_tokenizer(resolve_model(str(model)))
    number = json.loads((model / "config.json").read_text())["vocab_size"]
    assert load_tokenizer(model).pad_token_id == number
    assert tokenizer.pad_token == tokenizer.eos_token
    assert tokenizer.pad_token_id < number
    assert "'[PAD]' has the id" in caplog.text


def test_no_token_that_could_pad(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 1, "pad_token_id": 0, "eos_token_id": 0}))
    added = load_tokenizer(model)
    added.add_special_tokens({"pad_token": "[PAD]"})
    added.save_pretrained(model)
    with pytest.raises(InputError, match="the padding token '\\[PAD\\]' has the id"):
        load_source_tokenizer(resolve_model(str(model)))


def test_what_is_left_out_is_counted_for_the_record(tokenizer: Any) -> None:
    bounds = Bounds(8, drop_too_long=True)
    encode_fitting(rows(5, 9, 8, 10), tokenizer, bounds, name="training rows")
    encode_fitting(rows(5, 6), tokenizer, bounds, name="held-out rows")
    encode_fitting_pairs(datasets.Dataset.from_list([pair(6, 9), pair(6, 7)]), tokenizer, bounds, name="pairs")
    assert bounds.left_out == {"training rows": 2, "pairs": 1}
    assert Bounds(8, drop_too_long=True).left_out == {}
