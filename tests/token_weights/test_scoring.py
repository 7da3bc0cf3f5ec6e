"""Token weights made: scores against one answer at a time, token by token, and the tokens that training encodes."""

from __future__ import annotations

import json
import math
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from data_registry.core.errors import ArtifactError, InputError
from data_registry.formats.rewriting import rewriter_prompt
from ogpsa_cli.commands import inspect
from ogpsa_cli.commands import score_tokens as screen
from pipelines.configs.score_tokens import ScoreTokensConfig
from pipelines.configs.tools import InspectConfig
from pipelines.core.config import resolve
from pipelines.token_weights.opening import answer_tokens
from pipelines.token_weights.storage import WeightedAnswer
from pipelines.token_weights.texts import shown_answer
from pipelines.tokens.chat_template import render_prompt
from pipelines.tokens.conversations import encode_dataset
from pipelines.tokens.pairs import encode_pairs
from pipelines.tokens.tokenizer import load_tokenizer
from tests.distributed.worlds import encoded, encoded_pairs, make_data, make_model, make_pairs
from tests.token_weights.worlds import assistant, lines, make_rows, pair, user, weights

TOKENWISE = {"rel": 1e-4, "abs": 1e-6}
ROWS = [
    pair("what is two and two", "it is four .", "it is five .", reference="two and two is four"),
    pair("name a color", "red", "the color of the sky is not a fruit .", reference=None),
    pair("who are you", "a model that is small .", "a small model .", reference=" "),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_model(folder / "model")
    make_model(folder / "other", seed=1)
    make_pairs(folder / "pairs", 7, seed=3)
    make_data(folder / "data", 5, seed=4)
    make_rows(folder / "solved", ROWS, "preference")
    return folder


@cache
def _network(model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def one_by_one(model: Path, context: list[int], answer: list[int]) -> list[float]:
    """The log-probabilities of an answer's tokens, each by a pass of its own over what stands before it."""
    network = _network(model)
    found = []
    for place, token in enumerate(answer):
        with torch.no_grad():
            logits = network(torch.tensor([[*context, *answer[:place]]])).logits[0, -1].double()
        found.append(float(logits[token] - logits.logsumexp(0)))
    return found


def test_rewriter_scores_are_those_of_one_answer_at_a_time_token_by_token(made: Path, tmp_path: Path) -> None:
    found = lines(weights(made / "model", made / "solved", tmp_path / "w", batch_size=3))
    tokenizer = load_tokenizer(made / "model")
    solutions = ["two and two is four", "red", "a model that is small ."]
    assert [line["row"] for line in found] == [0, 1, 2]
    for line, row, solution in zip(found, ROWS, solutions, strict=True):
        request = rewriter_prompt(row["prompt"][0]["content"], solution, row["rejected"][0]["content"])
        context = tokenizer(render_prompt([user(request)], tokenizer), add_special_tokens=False)["input_ids"]
        exact = [math.exp(value) for value in one_by_one(made / "model", context, line["ids"])]
        assert line["score"] == pytest.approx(exact, **TOKENWISE)
        assert line["weight"] == [float(score < 0.5) for score in line["score"]]
        assert line["ref_logps"] is None


def test_log_probabilities_and_their_difference(made: Path, tmp_path: Path) -> None:
    pairs = encoded_pairs(made / "pairs", made / "model")
    sides = {"side": ["chosen", "rejected"]}
    alone = lines(weights(made / "model", made / "pairs", tmp_path / "alone", rule="logprob", **sides))
    options = {"rule": "ratio", "against": str(made / "other"), "map": "top", "top": 0.5, **sides}
    ratio = lines(weights(made / "model", made / "pairs", tmp_path / "ratio", **options))
    assert [(line["side"], line["row"]) for line in alone] == [
        (side, row) for side in ("chosen", "rejected") for row in range(len(pairs))
    ]
    for line, against in zip(alone, ratio, strict=True):
        answer = pairs[line["row"]][f"{line['side']}_ids"]
        assert line["ids"] == against["ids"] == answer
        here, there = (one_by_one(made / name, pairs[line["row"]]["prompt_ids"], answer) for name in ("model", "other"))
        assert line["score"] == pytest.approx(here, **TOKENWISE)
        assert line["ref_logps"] == line["score"]
        assert against["ref_logps"] == pytest.approx(there, **TOKENWISE)
        assert against["score"] == pytest.approx([a - b for a, b in zip(here, there, strict=True)], rel=1e-3, abs=1e-4)
        assert sum(against["weight"]) == max(1, round(0.5 * len(answer)))


def test_tokens_are_those_that_training_encodes(made: Path, tmp_path: Path) -> None:
    sft = weights(made / "model", made / "data", tmp_path / "sft", rule="logprob", max_length=16)
    tokenizer = load_tokenizer(made / "model")
    rows = datasets.load_from_disk(str(made / "data"))
    cut = [answer_tokens(row["labels"]) for row in encode_dataset(rows, tokenizer, 16)]
    given = sft.of_rows("answer", cut)
    assert [len(each) for each in given] == [len(ids) for ids in cut]
    whole = [answer_tokens(row["labels"]) for row in encoded(made / "data", made / "model")]
    first = next(row for row, ids in enumerate(whole) if ids != cut[row])
    with pytest.raises(ArtifactError) as caught:
        sft.of_rows("answer", whole)
    assert str(caught.value.where).startswith(f"row {first}, answer; they were computed with --max-length 16")


def test_pairs_of_another_template_are_refused(made: Path, tmp_path: Path) -> None:
    found = weights(made / "model", made / "pairs", tmp_path / "w", rule="edit")
    pairs = encoded_pairs(made / "pairs", made / "model")
    assert len(found.of_rows("rejected", [each["rejected_ids"] for each in pairs])) == 7
    tokenizer = load_tokenizer(made / "model")
    # The same, but for the end of turn.
    tokenizer.chat_template = "{% for m in messages %}{% if m.role == 'user' %}<user> {{ m.content }} <end> <bot>{% else %}{% generation %} {{ m.content }}{% endgeneration %}{% endif %}{% endfor %}"  # noqa: E501
    other = encode_pairs(datasets.load_from_disk(str(made / "pairs")), tokenizer, None, name="pairs")
    with pytest.raises(ArtifactError, match="not for the tokens that training encodes") as caught:
        found.of_rows("rejected", [each["rejected_ids"] for each in other])
    assert str(caught.value.where).startswith("row 0, rejected")


def test_rows_left_out_as_too_long_have_no_number(made: Path, tmp_path: Path) -> None:
    rows = [pair("a", "take oil and water and dry .", "red " * 12), *ROWS[:2], pair("b", "red", "blue")]
    data = make_rows(tmp_path / "mixed", [{**row, "reference": None} for row in rows], "preference")
    found = weights(made / "model", data, tmp_path / "w", rule="edit", max_length=13, drop_too_long=True)
    tokenizer = load_tokenizer(made / "model")
    kept = [row for row in rows if len(row["rejected"][0]["content"].split()) < 8]
    pairs = encode_pairs(datasets.Dataset.from_list(kept), tokenizer, None, name="kept")
    assert found.description.num_rows == len(pairs) == 2
    assert len(found.of_rows("rejected", [each["rejected_ids"] for each in pairs])) == 2
    assert found.manifest.summary["left_out"] == {"mixed": 2}


def test_edited_tokens_are_marked_against_the_reference_or_the_chosen_answer(made: Path, tmp_path: Path) -> None:
    rows = [
        pair("a", "take water and flour", "take water and oil", reference="take coal and oil"),
        pair("b", "take water and flour", "take water and oil", reference=None),
    ]
    data = make_rows(tmp_path / "data", rows, "preference")
    found = lines(weights(made / "model", data, tmp_path / "w", rule="edit", side=["rejected", "chosen"]))
    marked = [[int(weight) for weight in line["weight"][:4]] for line in found]
    assert marked == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert all(line["weight"] == line["score"] and line["weight"][-1] == 0 for line in found)


def test_first_answers_are_shown_with_the_tokens_that_count(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_rows(tmp_path / "data", [pair("b", "take water and flour", "take water and oil")], "preference")
    flags = {"model": str(made / "model"), "data": str(data), "out": str(tmp_path / "w"), "rule": "edit"}
    assert screen.execute(resolve(ScoreTokensConfig, flags=flags)) == 0
    assert inspect.execute(InspectConfig(path=tmp_path / "w")) == 0
    assert capsys.readouterr().out.count("row 0, rejected: take water and« oil» <end>") == 2


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([pair("a", "red", "blue")], {"side": ["answer"]}, "rows for preference, which have no side 'answer'"),
        ([{"messages": [user("a"), assistant("b")]}], {"side": ["rejected"]}, "rows for sft, which have no side"),
        ([{"messages": [user("a"), assistant("b")]}], {}, "--rule rewriter needs a right solution for each 'answer'"),
        ([pair("a", "red", "blue")], {"side": ["chosen"]}, "--rule rewriter needs a right solution for each 'chosen'"),
        (
            [{"messages": [user("a"), assistant("b")], "reference": "c"},
             {"messages": [user("a"), assistant("c")], "reference": None}],
            {"rule": "edit"}, "no right solution in its column 'reference' to hold its 'answer' against",
        ),
        (
            [{"messages": [user("a"), assistant("b"), user("c"), assistant("d")], "reference": "e"}],
            {}, "the row has several answers",
        ),
        ([pair("a", "red", "blue")], {"threshold": 1e-30}, "no token would count: the weights of all"),
        ([pair("a " * 500, "red", "blue")], {}, "longer than the"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused(
    made: Path, tmp_path: Path, rows: list[dict[str, object]], options: dict[str, object], said: str
) -> None:
    data = make_rows(tmp_path / "data", rows, "sft" if "messages" in rows[0] else "preference")
    model = _short(made, tmp_path) if "longer" in said else made / "model"
    with pytest.raises(InputError, match=said):
        weights(model, data, tmp_path / "w", **options)
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("data", "short")] == []


def test_a_request_that_does_not_fit_the_rewriter_is_refused_by_row(made: Path, tmp_path: Path) -> None:
    rows = [pair("a", "red", "blue"), pair("a", "red " * 30, "blue")]
    data = make_rows(tmp_path / "data", rows, "preference")
    with pytest.raises(InputError, match="the request to correct an answer") as caught:
        weights(_short(made, tmp_path), data, tmp_path / "w")
    assert caught.value.where == "data, row 1, rejected"


def test_models_with_other_tokens_cannot_be_held_against_each_other(made: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other")
    tokenizer = load_tokenizer(other)
    tokenizer.add_tokens(["anothertoken"])
    tokenizer.save_pretrained(other)
    with pytest.raises(InputError, match="has another tokenizer") as caught:
        weights(made / "model", made / "pairs", tmp_path / "w", rule="ratio", against=str(other))
    assert "'anothertoken' there and None here" in str(caught.value.where)


def _short(made: Path, folder: Path) -> Path:
    """The model with few positions: a request of short texts fits, one of long texts does not."""
    tokenizer = load_tokenizer(made / "model")
    bare = len(tokenizer(render_prompt([user(rewriter_prompt("a", "red", "blue"))], tokenizer))["input_ids"])
    model = Path(shutil.copytree(made / "model", folder / "short"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": bare + 10}))
    return model


def test_a_model_of_few_positions_is_refused_as_the_other_one_before_anything_is_computed(
    made: Path, tmp_path: Path
) -> None:
    data = make_rows(tmp_path / "data", [pair("a", "red", "blue " * 90)], "preference")
    with pytest.raises(InputError, match=r"a row has 9[0-9] tokens, and --against has") as caught:
        weights(made / "model", data, tmp_path / "w", rule="ratio", against=str(_short(made, tmp_path)))
    assert caught.value.where == "data, row 0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "short"]


def test_solutions_that_are_no_text_are_refused(made: Path, tmp_path: Path) -> None:
    data = make_rows(tmp_path / "data", [pair("a", "red", "blue", reference=42)], "preference")
    with pytest.raises(ArtifactError, match="column 'reference' is not text"):
        weights(made / "model", data, tmp_path / "w")


def test_text_in_pieces_is_the_whole_text_and_long_answers_are_shown_in_part(made: Path) -> None:
    tokenizer = load_tokenizer(made / "model")
    ids = tokenizer("take water and oil , then dry . " * 40)["input_ids"]
    numbers = np.linspace(0, 1, len(ids), dtype=np.float32)
    shown = shown_answer(WeightedAnswer(0, "answer", ids, numbers, numbers), tokenizer)
    assert "".join(piece.text for piece in shown.pieces) == tokenizer.decode(ids[:256])
    assert (len(shown.pieces), shown.num_more) == (256, len(ids) - 256)
    assert [piece.score for piece in shown.pieces] == pytest.approx(numbers[:256].tolist())
