"""A model's own answers as a data set: what a plain loop gives, with what the model expected at every place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from data_registry.core.errors import ArtifactError, ConfigError, InputError
from data_registry.prepared import load_prepared
from data_registry.prompts.reading import read_prompt_set
from data_registry.prompts.specs import PromptSetSpec
from data_registry.testbed import MODEL_DIR
from data_registry.testbed.pools import rows as pool_rows
from pipelines.commands import sample
from pipelines.configs.sample import SampleConfig
from pipelines.core.config import resolve
from pipelines.passes.distributions import places_of
from pipelines.samples.storage import Sample, StoredLogProbs
from pipelines.samples.tokens import training_tokens
from pipelines.sampling.expectations import Expectations, log_probs_of_rows, look_at_log_probs
from pipelines.sampling.prompts import read_prompts
from pipelines.tokens.chat_template import render_prompt
from pipelines.tokens.tokenizer import load_tokenizer
from tests.preparing.small_sources import prepare


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(MODEL_DIR)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    chosen = list(pool_rows("general", num_samples=10))
    other = {"messages": [*chosen[0]["messages"][:-1], {"role": "assistant", "content": "something else ."}]}
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in [*chosen, other]))
    return prepare(source, folder / "prepared").path


@pytest.fixture(scope="module")
def greedy(data, tmp_path_factory) -> Path:
    return make(data, tmp_path_factory.mktemp("samples") / "greedy", log_probs=12, max_new_tokens=20, batch_size=4)


def make(data: Path, out: Path, **options) -> Path:
    given = {"model": str(MODEL_DIR), "data": str(data), "out": str(out), **options}
    return sample.run(resolve(SampleConfig, flags=given)).path


def test_greedy_answers_are_those_of_a_plain_loop_and_every_prompt_is_asked_once(greedy, data, model, tokenizer):
    rows, manifest = load_prepared(greedy, task="sft")
    assert len(load_prepared(data)[0]) == 11
    assert list(rows["prompt_row"]) == list(range(10))
    assert manifest.summary["prompts"] == 10
    for row in rows:
        ids = tokenizer(render_prompt(row["messages"][:-1], tokenizer), add_special_tokens=False)["input_ids"]
        made = []
        for _ in range(20):
            with torch.no_grad():
                made.append(int(model(torch.tensor([ids + made])).logits[0, -1].argmax()))
            if made[-1] == tokenizer.eos_token_id:
                break
        assert row["messages"][-1]["content"] == tokenizer.decode(made, skip_special_tokens=True)
        assert (row["finish"], row["num_tokens"]) == (
            "end" if made[-1] == tokenizer.eos_token_id else "length",
            len(made),
        )


def test_prompt_set_of_the_registry_is_answered_without_being_prepared(tmp_path):
    rows, manifest = load_prepared(make(Path("lookalikes-train"), tmp_path / "s", num_samples=5, max_new_tokens=4))
    asked = [prompt.text for prompt in read_prompt_set(PromptSetSpec(data="lookalikes-train")).prompts]
    assert [row["messages"][0]["content"] for row in rows] == [asked[row["prompt_row"]] for row in rows]
    assert len(rows) <= 5
    assert [record.path for record in manifest.inputs if record.role == "data"] == ["lookalikes-train"]


def test_name_that_is_nothing_suggests_the_nearest_prompt_set(tmp_path):
    with pytest.raises(InputError, match=r"neither a data set nor a prompt set.*did you mean 'lookalikes-train'"):
        make(Path("lookalikes-trian"), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_path_goes_before_a_prompt_set_of_its_name(data, tmp_path, monkeypatch):
    (tmp_path / "lookalikes-train").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    assert read_prompts(Path("lookalikes-train"), None, 0).num_distinct == 10
    assert read_prompts(Path("lookalikes"), None, 0).num_distinct == 170


def test_log_probabilities_are_the_models_at_the_places_that_training_sees(greedy, model, tokenizer):
    rows, _ = load_prepared(greedy)
    stored = StoredLogProbs(greedy)
    samples = [Sample(row["messages"], row["prompt_row"], row["sample"], row["finish"], 0) for row in rows]
    assert len(stored) == len(rows)
    for number, (ids, labels) in enumerate(training_tokens(samples, tokenizer)):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, places_of(labels)].double()
        exact, found = logits.log_softmax(-1), stored.row(number)
        assert found.ids.shape == (len(places_of(labels)), 12)
        torch.testing.assert_close(found.log_probs.double(), exact.topk(12).values, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.log_probs.double(), exact.gather(-1, found.ids), rtol=1e-4, atol=1e-4)
        others = exact.exp().scatter(-1, found.ids, 0).sum(-1)
        torch.testing.assert_close(found.rest.double().exp(), others, rtol=1e-3, atol=1e-7)
        # The answer is greedy: at every place the token that follows is the most likely one.
        assert [ids[place + 1] for place in places_of(labels)] == found.ids[:, 0].tolist()


def test_samples_to_one_prompt_differ_and_come_out_the_same_again(data, tmp_path):
    options = {"answers": 6, "temperature": 3.0, "max_new_tokens": 12, "num_samples": 3}
    rows = load_prepared(make(data, tmp_path / "one", batch_size=64, **options))[0]
    again = load_prepared(make(data, tmp_path / "two", batch_size=64, **options))[0]
    assert rows[:] == again[:]
    asked = set(rows["prompt_row"])
    assert len(asked) == 3
    for number in asked:
        answers = [row["messages"][-1]["content"] for row in rows if row["prompt_row"] == number]
        assert len(set(answers)) >= 3


def test_no_end_is_trained_where_the_model_did_not_end(tokenizer):
    messages = [{"role": "user", "content": "what is a cat ?"}, {"role": "assistant", "content": "a cat is"}]
    (ended, whole), (cut, part) = (
        (ids, [label for label in labels if label != -100])
        for ids, labels in training_tokens(
            [Sample(messages, 0, 0, "end", 4), Sample(messages, 0, 0, "length", 3)], tokenizer
        )
    )
    assert ended == cut
    assert whole == [*part, tokenizer.eos_token_id]


def test_what_was_computed_is_not_computed_again(tmp_path, model):
    rows = [([5, 6, 7, 8], [-100, -100, 7, 8]), ([5, 6, 9], [-100, -100, 9]), ([5, 7, 9], [-100, 7, 9])]

    def expectations(identity: str = "a") -> Expectations:
        return log_probs_of_rows(rows, 3, vocabulary=586, batch_size=2, folder=tmp_path, identity=identity)

    look = look_at_log_probs(model, 3)
    expectations().compute(look, torch.device("cpu"))
    first = [row["log_probs"].clone() for row in expectations().rows()]
    expectations().compute(look_at_log_probs(None, 3), torch.device("cpu"))  # no model is needed any more
    damaged = sorted(tmp_path.glob("*.safetensors"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-30])
    expectations().compute(look, torch.device("cpu"))
    assert all(torch.equal(a, row["log_probs"]) for a, row in zip(first, expectations().rows(), strict=True))
    with pytest.raises(AttributeError):
        expectations("b").compute(look_at_log_probs(None, 3), torch.device("cpu"))  # another model's are not taken


def test_preference_data_gives_its_prompts(tmp_path):
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in pool_rows("safety-dpo", num_samples=4)))
    prompts = read_prompts(prepare(source, tmp_path / "pairs").path, None, 0)
    assert prompts.messages
    assert all(messages[-1]["role"] == "user" for messages in prompts.messages)
    drawn = read_prompts(tmp_path / "pairs", 2, 0)
    assert drawn.rows == sorted(drawn.rows)
    assert len(drawn.rows) == 2


def test_options_without_effect_are_refused(data, tmp_path):
    for options in ({"answers": 2}, {"top_p": 0.5}):
        with pytest.raises(ConfigError, match="temperature"):
            make(data, tmp_path / "out", **options)
    with pytest.raises(ArtifactError, match="log-probabilities"):
        StoredLogProbs(make(data, tmp_path / "plain", max_new_tokens=4, num_samples=1))
