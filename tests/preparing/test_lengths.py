"""Rows and the tokenizer: what trains nothing within the length is dropped, and the preview shows what trains."""

from data_registry.prepared import load_prepared
from tests.preparing.small_sources import prepare, write

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
