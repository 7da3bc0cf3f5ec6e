"""Suites on models that keep their settings elsewhere, have few positions, or a template that fails."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3Config, OPTConfig, OPTForCausalLM, PreTrainedModel

from data_registry.core.errors import InputError
from data_registry.testbed import MODEL_DIR
from pipelines.evaluation.answering.backend import TransformersBackend
from pipelines.evaluation.contract.answer import Decoding
from pipelines.evaluation.contract.suite import SuiteRequest
from pipelines.evaluation.suites.multiple_choice import MultipleChoiceSuite
from pipelines.evaluation.suites.preference import PreferenceSuite
from pipelines.evaluation.suites.reference_loss import ReferenceLossSuite
from pipelines.evaluation.suites.sample_losses import sample_losses
from pipelines.evaluation.suites.testbed import TestbedSuite
from pipelines.tokens.tokenizer import load_tokenizer
from tests.distributed import worlds
from tests.evaluation.test_scored import prepared

POSITIONS = 24


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(MODEL_DIR)


@pytest.fixture(scope="module")
def gemma(tokenizer) -> PreTrainedModel:
    """A model of several parts, which has its vocabulary and positions in the part of the text."""
    torch.manual_seed(0)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64,
        "pad_token_id": 0,
    }  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    return AutoModelForCausalLM.from_config(Gemma3Config(text_config=text, vision_config=vision)).eval()


@pytest.fixture(scope="module")
def opt(tokenizer) -> PreTrainedModel:
    """A model of few learnt positions."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2,
        word_embed_proj_dim=16, max_position_embeddings=POSITIONS, pad_token_id=0,
    )  # fmt: skip
    return OPTForCausalLM(config).eval()


def request(*data: Path, **options) -> SuiteRequest:
    return SuiteRequest(**{"data": data, "num_samples": None, "batch_size": 2, "max_length": 2048, "seed": 0,
                           "resamples": 50} | options)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fitting")
    choices = [{"question": f"which {word} ?", "choices": ["one", "two"], "answer": 1} for word in ("day", "month")]
    long = [{"messages": [{"role": "user", "content": "how many ?"}, {"role": "assistant", "content": "day " * count}]}
            for count in (3, 40)]  # fmt: skip
    return {
        "sft": worlds.make_data(folder / "rows", 3, seed=1),
        "preference": worlds.make_pairs(folder / "pairs", 3, seed=2),
        "choices": prepared(folder / "choices", choices, format="choices"),
        "long": prepared(folder / "long", long),
    }


def test_settings_of_a_nested_configuration(gemma, tokenizer, data) -> None:
    assert not hasattr(gemma.config, "vocab_size")
    uniform = math.log(len(tokenizer))
    (losses,) = ReferenceLossSuite(request(data["sft"])).run(gemma, tokenizer)
    # Random weights know nothing.
    assert losses.results.metrics[0].value == pytest.approx(uniform, rel=0.1)
    (pairs,) = PreferenceSuite(request(data["preference"])).run(gemma, tokenizer)
    assert len(pairs.items) == 6
    (choices,) = MultipleChoiceSuite(request(data["choices"])).run(gemma, tokenizer)
    assert len(choices.items) == 2
    assert TransformersBackend(gemma, tokenizer, Decoding(4)).context == 64


def test_answers_are_scored_up_to_the_models_positions_and_that_is_said(opt, tokenizer, data, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        (outcome,) = ReferenceLossSuite(request(data["long"])).run(opt, tokenizer)
    assert outcome.results.settings.max_length == POSITIONS
    assert f"1 of 2 answers are scored up to {POSITIONS} tokens with their question" in caplog.text
    assert "the positions that the model has" in caplog.text
    ids = tokenizer("<user> how many ? <bot> " + "day " * 40, add_special_tokens=False)["input_ids"][:POSITIONS]
    marks = ids.index(tokenizer.convert_tokens_to_ids("<bot>")) + 1
    (expected,) = sample_losses(opt, [(ids, [-100] * marks + ids[marks:])], batch_size=1)
    assert outcome.items[1].score == pytest.approx(expected.total / expected.num_tokens)
    caplog.clear()
    ReferenceLossSuite(request(data["long"], max_length=12)).run(opt, tokenizer)
    assert "is --max-length" in caplog.text


def test_the_testbed_needs_positions(opt, tokenizer) -> None:
    with pytest.raises(InputError, match=f"and the model has {POSITIONS}"):
        TestbedSuite(request(num_samples=1)).run(opt, tokenizer)


@pytest.mark.parametrize(
    "template",
    ['{{ raise_exception("no") }}', "{{ nothing.x.y }}", "{% for %}", "{{ 1 / 0 }}", "{{ 1 + messages }}", ""],
)
def test_templates_that_fail_in_the_testbed_suite(opt, tmp_path, template: str) -> None:
    for file in MODEL_DIR.glob("tokenizer*"):
        shutil.copyfile(file, tmp_path / file.name)
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(InputError, match="the chat template refuses the conversation: ") as caught:
        TestbedSuite(request(num_samples=1)).run(opt, load_tokenizer(tmp_path))
    assert "testbed, item" in str(caught.value.where)


def test_a_prompt_without_tokens(opt, tmp_path) -> None:
    for file in MODEL_DIR.glob("tokenizer*"):
        shutil.copyfile(file, tmp_path / file.name)
    (tmp_path / "chat_template.jinja").write_text("  ")
    with pytest.raises(InputError, match="leaves out what the user says"):
        TestbedSuite(request(num_samples=1)).run(opt, load_tokenizer(tmp_path))
