"""Tokens and labels are those of the serving template, for every kind of template."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from data_registry.core.errors import InputError
from pipelines.tokens.chat_template import render
from pipelines.tokens.conversations import Encoded, encode, encode_batch, encode_dataset, preview
from pipelines.tokens.labels import IGNORED
from pipelines.tokens.tokenizer import load_tokenizer

CHATML = (
    "{%- if messages[0]['role'] != 'system' -%}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' -}}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
LLAMA3 = (
    "{%- for message in messages -%}"
    "{%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim"
    " + '<|eot_id|>' -%}"
    "{%- if loop.index0 == 0 -%}{%- set content = bos_token + content -%}{%- endif -%}{{- content -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}"
)
MARKED = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|im_start|>assistant\n' -}}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}{{- '\n' -}}"
    "{%- else -%}{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
# As in models that think: an earlier answer is written without what a last one gets.
THINKING = CHATML.replace(
    "message['content'] + '<|im_end|>'",
    "('<think>\n\n</think>\n\n' if loop.last and message['role'] == 'assistant' else '') + message['content']"
    " + '<|im_end|>'",
)
NO_SYSTEM = (
    "{%- if messages[0]['role'] == 'system' -%}{{- raise_exception('System role not supported') -}}{%- endif -%}"
)
DROPS_SYSTEM = CHATML.replace("in messages -", "in messages if message['role'] != 'system' -")
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA_SPECIALS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
SENTENCE = "the rain falls on hills where seven small rivers begin; answer 42, don't ask 1999 times! naïve café 東京 🦜"
WORDS = SENTENCE.split()
TURNS = [
    {"role": "user", "content": "What falls on  the hills?\n"},
    {"role": "assistant", "content": "The rain: 42  rivers,\n\nnaïve café 東京 🦜."},
    {"role": "user", "content": "Where do seven begin?"},
    {"role": "assistant", "content": "\nOn the hills! "},
]
SYSTEM = {"role": "system", "content": "Answer the small rivers."}


def bpe(specials: list[str], *, trim_offsets: bool = False, bos: str | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = Regex(r"'s|'t| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    steps = [processors.ByteLevel(trim_offsets=trim_offsets)]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [" ".join(WORDS[i:] + WORDS[:i]) + "\nsystem\nuser\nassistant\n\n" for i in range(len(WORDS))]
    tokenizer.train_from_iterator(texts, trainer)
    if bos is not None:
        pair = (bos, tokenizer.token_to_id(bos))
        steps.append(
            processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[pair])
        )
    tokenizer.post_processor = processors.Sequence(steps)
    return tokenizer


def chatml(template: str | None = CHATML, **kwargs: object) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe(SPECIALS, **kwargs),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
    )


def llama3(**kwargs: object) -> PreTrainedTokenizerFast:
    # This family adds a BOS by itself and has one in its template: the doubled one is what must not happen.
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe(LLAMA_SPECIALS, bos="<|begin_of_text|>", **kwargs),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=LLAMA3,
    )


TOKENIZERS = {
    "chatml": chatml,
    "llama3": llama3,
    "marked": lambda: chatml(MARKED),
    "chatml, trimmed offsets": lambda: chatml(trim_offsets=True),
    "llama3, trimmed offsets": lambda: llama3(trim_offsets=True),
}


@pytest.fixture(scope="module", params=list(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]()


def trained_texts(encoded, tokenizer) -> list[str]:
    """The trained stretches as text."""
    stretches, current = [], []
    for label in [*encoded.labels, IGNORED]:
        if label != IGNORED:
            current.append(label)
        elif current:
            stretches.append(tokenizer.decode(current))
            current = []
    return stretches


@pytest.mark.parametrize("messages", [TURNS[:2], TURNS, [SYSTEM, *TURNS]], ids=["one turn", "two turns", "system"])
def test_ids_are_those_of_the_serving_template_token_by_token(tokenizer, messages):
    encoded = encode(messages, tokenizer)
    served = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    assert encoded.input_ids == served
    if tokenizer.bos_token is not None:
        assert encoded.input_ids.count(tokenizer.bos_token_id) == 1
    # What a server feeds for the last answer is how the training sequence begins, and none of that is trained.
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
    if not messages[-1]["content"].startswith("\n"):  # there the two line breaks may merge into one token
        assert encoded.input_ids[: len(prompt)] == prompt
        assert encoded.labels[len(prompt) - 1] == IGNORED
        assert encoded.labels[len(prompt)] == encoded.input_ids[len(prompt)]


def test_only_answers_and_their_end_marks_are_trained(tokenizer):
    encoded = encode([SYSTEM, *TURNS], tokenizer)
    end = tokenizer.eos_token
    trims = "start_header" in tokenizer.chat_template
    first, second = TURNS[1]["content"], TURNS[3]["content"]
    texts = trained_texts(encoded, tokenizer)
    assert texts[0] == first + end
    assert texts[1].lstrip() == (second.strip() if trims else second.lstrip()) + end
    assert len(texts) == 2
    assert all(label in (IGNORED, token) for label, token in zip(encoded.labels, encoded.input_ids, strict=True))
    assert encoded.num_trained == sum(label != IGNORED for label in encoded.labels)


def test_marked_template_gives_the_mask_of_transformers():
    tokenizer = chatml(MARKED)
    for messages in (TURNS[:2], TURNS, [SYSTEM, *TURNS]):
        served = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        encoded = encode(messages, tokenizer)
        assert [int(label != IGNORED) for label in encoded.labels] == list(served["assistant_masks"])


def test_marks_and_prefixes_agree():
    for messages in ([SYSTEM, *TURNS], [SYSTEM, *TURNS[:2]]):
        assert encode(messages, chatml(MARKED)) == encode(messages, chatml(CHATML))


def test_white_space_after_the_end_mark_is_not_trained():
    tokenizer = chatml()
    encoded = encode(TURNS[:2], tokenizer)
    assert tokenizer.decode(encoded.input_ids[-1:]) == "\n"
    assert encoded.labels[-1] == IGNORED
    assert encoded.labels[-2] == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_white_space_is_trained_where_nothing_else_ends_a_turn():
    template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    tokenizer = chatml(template)
    messages = [{"role": "user", "content": "rain?"}, {"role": "assistant", "content": "seven rivers"}]
    assert trained_texts(encode(messages, tokenizer), tokenizer) == [" seven rivers\n\n"]


def test_completion_of_a_pair_is_trained_alone(tokenizer):
    encoded = encode(TURNS, tokenizer, train_from=3)
    (text,) = trained_texts(encoded, tokenizer)
    assert text.strip().startswith("On the hills!")


def test_cutting_keeps_ids_and_labels_together(tokenizer):
    whole, cut = encode(TURNS, tokenizer), encode(TURNS, tokenizer, 20)
    assert cut.input_ids == whole.input_ids[:20]
    assert cut.labels == whole.labels[:20]
    assert cut.num_cut == len(whole.input_ids) - 20
    assert encode(TURNS, tokenizer, 5).num_trained == 0


def test_first_token_of_a_sequence_does_not_count_as_trained():
    # A causal loss predicts each token from those before it: nothing predicts the first.
    assert Encoded([7, 8], [7, IGNORED]).num_trained == 0
    assert Encoded([7, 8], [7, 8]).num_trained == 1


def test_batch_equals_single_rows(tokenizer):
    conversations = [TURNS[:2], TURNS, [SYSTEM, *TURNS]]
    assert encode_batch(conversations, tokenizer) == [encode(messages, tokenizer) for messages in conversations]


def test_testbed_like_words_without_white_space_tokens():
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<u>": 1, "<b>": 2, "<end>": 3, "rain": 4, "falls": 5}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<u> ' + m['content'] }}{% else %}{{ ' <b>' }}"
        "{% generation %}{{ ' ' + m['content'] + ' <end>' }}{% endgeneration %}{% endif %}{% endfor %}"
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", chat_template=template)
    messages = [{"role": "user", "content": "rain"}, {"role": "assistant", "content": "falls"}]
    # The answer begins with a space that no token covers, which transformers' own mask does not survive.
    assert encode(messages, tokenizer).labels == [IGNORED, IGNORED, IGNORED, 5, 3]


def test_template_that_rewrites_earlier_answers_is_refused_and_single_turns_are_not():
    tokenizer = chatml(THINKING)
    assert trained_texts(encode(TURNS[:2], tokenizer), tokenizer)[0].startswith("<think>")
    with pytest.raises(InputError, match="differently when the conversation goes on") as caught:
        encode(TURNS, tokenizer)
    assert "message 2 of 4" in str(caught.value)
    assert "--chat-template" in str(caught.value)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (NO_SYSTEM + CHATML, "System role not supported"),
        (DROPS_SYSTEM, "leaves system messages out"),
        (None, "has no chat template"),
        (MARKED.replace("{%- generation -%}", "{%- generation -%}{%- endgeneration -%}{%- generation -%}"), "marks 4"),
    ],
    ids=["refuses system", "drops system", "no template", "marks twice"],
)
def test_unusable_templates_are_named_with_a_fix(template, text):
    with pytest.raises(InputError, match=text) as caught:
        encode([SYSTEM, *TURNS], chatml(template))
    assert caught.value.fix


def test_conversation_that_begins_with_an_answer_is_refused():
    with pytest.raises(InputError, match="begins with an answer"):
        encode(TURNS[1:2], chatml())


def test_render_gives_character_ranges():
    text, spans = render(TURNS[:2], chatml())
    assert [text[start:end] for start, end in spans] == [TURNS[1]["content"] + "<|im_end|>"]


def dataset_of(rows):
    import datasets

    return datasets.Dataset.from_list([{"messages": row} for row in rows])


def test_encode_dataset_for_any_number_of_workers():
    tokenizer = chatml()
    rows = [
        [{"role": "user", "content": f"rain {i}?"}, {"role": "assistant", "content": f"hills {i}"}] for i in range(600)
    ]
    alone = encode_dataset(dataset_of(rows), tokenizer, 64)
    together = encode_dataset(dataset_of(rows), tokenizer, 64, num_workers=2)
    assert alone.column_names == ["input_ids", "labels"]
    assert alone.to_dict() == together.to_dict()
    assert alone._fingerprint == together._fingerprint
    expected = encode(rows[599], tokenizer)
    assert alone[599] == {"input_ids": expected.input_ids, "labels": expected.labels}


def test_encode_dataset_names_the_row_without_a_trained_token():
    rows = [TURNS[:2]] * 3 + [[{"role": "user", "content": "rain " * 90}, TURNS[1]]]
    with pytest.raises(InputError, match="no trained token") as caught:
        encode_dataset(dataset_of(rows), chatml(), 80)
    assert caught.value.where == "row 3"


def test_encode_dataset_names_the_row_that_the_template_refuses():
    rows = [TURNS[:2], [SYSTEM, *TURNS[:2]]]
    with pytest.raises(InputError, match="System role not supported") as caught:
        encode_dataset(dataset_of(rows), chatml(NO_SYSTEM + CHATML), None)
    assert caught.value.where == "row 1"
    with pytest.raises(InputError) as caught:
        encode_dataset(dataset_of(rows), chatml(NO_SYSTEM + CHATML), None, name="maths")
    assert caught.value.where == "maths, row 1"


def test_encode_dataset_refuses_other_data():
    import datasets

    with pytest.raises(InputError, match="no 'messages'"):
        encode_dataset(datasets.Dataset.from_dict({"text": ["a"]}), chatml(), None)
    with pytest.raises(InputError, match="empty"):
        encode_dataset(dataset_of([TURNS]).select([]), chatml(), None)


def test_preview_gives_back_the_text_with_whole_characters(tokenizer):
    encoded = encode([SYSTEM, *TURNS], tokenizer)
    pieces = preview(encoded.input_ids, encoded.labels, tokenizer)
    assert "".join(text for text, _ in pieces) == tokenizer.decode(encoded.input_ids)
    assert not any("\ufffd" in text for text, _ in pieces)
    trained = "".join(text for text, flag in pieces if flag)
    assert trained == "".join(trained_texts(encoded, tokenizer))


# Loading


def save(tokenizer, path: Path) -> Path:
    tokenizer.save_pretrained(path)
    return path


def test_loaded_tokenizer_encodes_alike_and_keeps_its_padding(tmp_path):
    tokenizer = chatml()
    loaded = load_tokenizer(save(tokenizer, tmp_path / "t"))
    assert encode(TURNS, loaded) == encode(TURNS, tokenizer)
    assert loaded.pad_token == "<|endoftext|>"


def test_missing_padding_token_is_borrowed_and_the_vocabulary_does_not_grow(tmp_path):
    tokenizer = llama3()
    loaded = load_tokenizer(save(tokenizer, tmp_path / "t"))
    assert loaded.pad_token == "<|eot_id|>"
    assert len(loaded) == len(tokenizer)


def test_nothing_to_pad_with_is_an_error(tmp_path):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe(SPECIALS))
    with pytest.raises(InputError, match="to pad with"):
        load_tokenizer(save(tokenizer, tmp_path / "t"))


def test_other_chat_template_is_used_from_a_file(tmp_path):
    file = tmp_path / "template.jinja"
    file.write_text(MARKED, encoding="utf-8")
    loaded = load_tokenizer(save(chatml(None), tmp_path / "t"), chat_template=file)
    assert loaded.chat_template == MARKED


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda path: [file.unlink() for file in path.iterdir()], "holds no tokenizer"),
        (lambda path: _truncate(path / "tokenizer.json"), "cannot be read"),
        (lambda path: (path / "tokenizer.json").write_text(json.dumps({"a": 1})), "not a tokenizer"),
    ],
    ids=["missing", "empty", "truncated", "foreign"],
)
def test_unreadable_tokenizers_are_input_errors(tmp_path, damage, text):
    path = save(chatml(), tmp_path / "t")
    damage(path)
    with pytest.raises(InputError, match=text):
        load_tokenizer(path)


def test_unreadable_chat_templates_are_input_errors(tmp_path):
    path = save(chatml(), tmp_path / "t")
    with pytest.raises(InputError, match="cannot be read"):
        load_tokenizer(path, chat_template=tmp_path / "none.jinja")
    (tmp_path / "bad.jinja").write_text("a\n{% for %}")
    with pytest.raises(InputError, match="not Jinja") as caught:
        load_tokenizer(path, chat_template=tmp_path / "bad.jinja")
    assert caught.value.where.endswith("bad.jinja:2")
