"""A source and a tokenizer."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.preparing.small_sources import TEMPLATE, alpaca, write


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "a.jsonl", [alpaca(i) for i in range(1500)])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<u>": 1, "<b>": 2, "<end>": 3}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="<end>", chat_template=TEMPLATE
    ).save_pretrained(path)
    return str(path)
