"""Rows and the tokenizer: what trains nothing within the length is dropped, and the preview shows what trains."""

import json
import shutil

import pytest

from data_registry.core.errors import ArtifactError, InputError
from data_registry.prepared import load_prepared
from ogpsa_cli.commands.prepare_data import _count_lines
from pipelines.commands import prepare_data
from pipelines.tokens import rendering
from tests.preparing.small_sources import config, prepare, write

# Tokenizer, length, preview


def long_rows():
    rows = [{"prompt": "q " * 5, "completion": "a " * 5}, {"prompt": "q " * 5, "completion": "b " * 30}]
    return [*rows, {"prompt": "q " * 30, "completion": "c"}, {"prompt": "q " * 9, "completion": "d"}]


def test_rows_without_a_trained_token_within_the_length_are_dropped(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", long_rows())
    result = prepare(path, tmp_path / "out", tokenizer=tokenizer, max_length=12, max_dropped=0.5, num_workers=2)
    # 13, 38, 33 and 13 tokens. The 12th of the last is d: kept. <u> and 30 q leave no room for an answer.
    assert result.counts.dropped == {"no_trained_token": 1}
    assert (result.counts.kept, result.counts.cut) == (3, 3)
    assert {record.role for record in result.manifest.inputs} == {"source", "tokenizer"}
    tight = prepare(path, tmp_path / "out2", tokenizer=tokenizer, max_length=11, max_dropped=0.5)
    assert tight.counts.dropped == {"no_trained_token": 2}
    # What is kept can be trained on.
    from pipelines.tokens.conversations import encode_dataset
    from pipelines.tokens.tokenizer import load_tokenizer

    rows, _ = load_prepared(tmp_path / "out")
    assert len(encode_dataset(rows, load_tokenizer(tokenizer), 12)) == 3


def test_both_answers_of_a_pair_must_have_a_trained_token(tmp_path, tokenizer):
    rows = [{"prompt": "q " * 5, "chosen": "a", "rejected": "b"}, {"prompt": "q " * 20, "chosen": "a", "rejected": "b"}]
    path = write(tmp_path / "a.jsonl", rows)
    result = prepare(path, tmp_path / "out", tokenizer=tokenizer, max_length=12, max_dropped=0.5, preview=5)
    assert result.counts.dropped == {"no_trained_token": 1}
    assert [[text.strip() for text, trained in row if trained] for row in result.preview] == [["<unk>", "<end>"]] * 2


def test_answers_within_the_prompt_of_a_pair_do_not_count_as_trained(tmp_path, tokenizer):
    prompt = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "q " * 20},
    ]
    answers = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    path = write(tmp_path / "a.jsonl", [{"prompt": prompt, **answers}, {"prompt": prompt[:1], **answers}])
    result = prepare(path, tmp_path / "out", tokenizer=tokenizer, max_length=12, max_dropped=0.5)
    assert result.counts.dropped == {"no_trained_token": 1}


def test_rows_that_the_template_refuses_are_dropped(tmp_path, tokenizer):
    rows = [
        {"messages": [{"role": role, "content": "text"} for role in roles]}
        for roles in (["user", "assistant"], ["system", "user", "assistant"])
    ]
    result = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out", tokenizer=tokenizer, max_dropped=0.5)
    assert result.counts.dropped == {"template": 1}
    assert "no system messages here" in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_preview_shows_what_is_trained_also_when_up_to_date(source, tmp_path, tokenizer):
    for _ in range(2):
        result = prepare(source, tmp_path / "out", tokenizer=tokenizer, preview=2)
        assert len(result.preview) == 2
        assert [trained for _, trained in result.preview[0]] == [False, False, False, False, True, True, True]
        assert result.preview[0][-1][0].strip() == "<end>"


# The model's room

SMALL = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 4, "n_positions": 20}


def model_of(tokenizer, folder, **settings):
    shutil.copytree(tokenizer, folder)
    (folder / "config.json").write_text(json.dumps(SMALL | settings))
    return str(folder)


def test_rows_longer_than_the_models_positions_are_counted_or_left_out(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", long_rows())  # 13, 38, 33 and 13 tokens
    model = model_of(tokenizer, tmp_path / "model")
    kept = prepare(path, tmp_path / "kept", tokenizer=model)
    assert (kept.counts.kept, kept.counts.beyond_positions, kept.counts.too_long) == (4, 2, 0)
    left = prepare(path, tmp_path / "left", tokenizer=model, drop_too_long=True)
    # Nobody asked for them, so that they do not count as unusable.
    assert (left.counts.kept, left.counts.beyond_positions, left.counts.too_long) == (2, 0, 2)
    assert left.counts.dropped == {}
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "left" / "rejected.jsonl").read_text().splitlines()]
    assert reasons == ["too_long", "too_long"]
    # The shorter of both limits counts.
    tight = prepare(path, tmp_path / "tight", tokenizer=tokenizer, max_length=35, drop_too_long=True)
    assert (tight.counts.kept, tight.counts.too_long) == (3, 1)
    both = prepare(path, tmp_path / "both", tokenizer=model, max_length=35, drop_too_long=True)
    assert (both.counts.kept, both.counts.too_long) == (2, 2)


def test_another_number_of_positions_makes_another_data_set(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", long_rows())
    model = tmp_path / "model"
    model_of(tokenizer, model)
    options = {"tokenizer": str(model), "drop_too_long": True}
    assert prepare(path, tmp_path / "out", **options).counts.kept == 2
    assert prepare(path, tmp_path / "out", **options).up_to_date
    (model / "config.json").write_text(json.dumps(SMALL | {"n_positions": 34}))
    with pytest.raises(ArtifactError):
        prepare(path, tmp_path / "out", **options)
    assert prepare(path, tmp_path / "out", overwrite=True, **options).counts.kept == 3


def test_no_row_is_left(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", long_rows())
    with pytest.raises(InputError, match="has no usable row: of 4 read, 4 too long"):
        prepare(path, tmp_path / "out", tokenizer=tokenizer, max_length=5, drop_too_long=True)


def test_tokens_that_the_model_has_no_embedding_for(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", long_rows())
    model = model_of(tokenizer, tmp_path / "model", vocab_size=3)
    with pytest.raises(InputError, match="the tokenizer gives token 3, and the model has embeddings for 3 only"):
        prepare(path, tmp_path / "out", tokenizer=model)


def test_a_template_that_does_not_end_is_not_tried_on_every_row(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(rendering, "TIME_LIMIT_S", 0.1)
    folder = tmp_path / "tokenizer"
    shutil.copytree(tokenizer, folder)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(loop)
    with pytest.raises(InputError, match="has not ended after"):
        prepare(write(tmp_path / "a.jsonl", long_rows()), tmp_path / "out", tokenizer=str(folder), max_dropped=1)


def test_whether_lengths_were_checked_is_said(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", long_rows())
    assert dict(prepare_data.plan(config(path, tmp_path / "out")))["length"].startswith("not checked")
    for options in ({"max_length": 20}, {"max_length": 20, "drop_too_long": True}, {}):
        planned = dict(prepare_data.plan(config(path, tmp_path / "out", tokenizer=tokenizer, **options)))
        assert tokenizer in planned["length"]
    said = [list(_count_lines(result.counts, result.manifest)) for result in (
        prepare(path, tmp_path / "unchecked"), prepare(path, tmp_path / "checked", tokenizer=tokenizer),
    )]  # fmt: skip
    assert ["not checked" in lines[-1] for lines in said] == [True, False]
