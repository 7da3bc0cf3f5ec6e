"""Answers of a model: the same whatever shares their batch, as a plain loop gives them, and kept as they are made."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from data_registry.core import stopping
from data_registry.core.errors import ArtifactError, InputError, NumericsError, Preempted
from data_registry.testbed import MODEL_DIR
from pipelines.evaluation.answering.asking import Answer, answer_all, answers_to, ask, plan_batches, request_for
from pipelines.evaluation.answering.backend import TransformersBackend
from pipelines.evaluation.answering.sampling import SampledToken
from pipelines.evaluation.answering.store import AnswerStore, read_generations, write_generations
from pipelines.evaluation.contract.answer import Decoding, StoredAnswer
from pipelines.evaluation.contract.suite import PromptItem
from pipelines.tokens.tokenizer import load_tokenizer

CONTEXT = 48


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(MODEL_DIR)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    made = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        made.lm_head.weight.mul_(20)  # so that answers are not one word repeated
    common = plain_greedy(made, prompts(12)[0], 14)[5]
    with torch.no_grad():
        made.lm_head.weight[tokenizer.eos_token_id] = 1.05 * made.lm_head.weight[common]  # so that some answers end
    return made


def prompts(count: int, longest: int = 20) -> list[list[int]]:
    generator = random.Random(1)
    return [[generator.randrange(6, 200) for _ in range(generator.randint(2, longest))] for _ in range(count)]


def plain_greedy(model, prompt: list[int], limit: int) -> list[int]:
    """One token after the other, without a cache, without padding."""
    ids = list(prompt)
    for _ in range(limit):
        with torch.no_grad():
            logits, tokens = model(torch.tensor([ids])).logits[0, -1].topk(2)
        # Logits of some ten, whose last digits depend on the shape of the batch: no rounding decides the choice.
        assert logits[0] - logits[1] > 1e-3
        ids.append(int(tokens[0]))
        if ids[-1] == model.config.eos_token_id:
            break
    return ids[len(prompt) :]


def test_a_batch_gives_each_prompt_the_answer_of_a_plain_loop(model, tokenizer):
    asked = prompts(12)
    expected = [plain_greedy(model, prompt, 14) for prompt in asked]
    assert len({tuple(answer) for answer in expected}) > 6
    assert {len(answer) < 14 for answer in expected} == {True, False}  # ended ones and cut ones
    backend = TransformersBackend(model, tokenizer, Decoding(14))
    assert backend.generate(asked, max_new_tokens=14, seeds=[]) == expected
    assert [backend.generate([prompt], max_new_tokens=14, seeds=[])[0] for prompt in asked] == expected


def answers_of(model, tokenizer, asked: list[list[int]]) -> list[Answer]:
    backend, decoding = TransformersBackend(model, tokenizer, Decoding(14)), Decoding(14)
    requests = [request_for(backend, ids, decoding, number, number) for number, ids in enumerate(asked)]
    found = {}
    for some in answers_to(backend, tokenizer, [requests], 4):
        found |= some
    return [found[number] for number in range(len(asked))]


def test_ends_are_told_from_cuts(model, tokenizer):
    asked = prompts(12)
    answers = answers_of(model, tokenizer, asked)
    for prompt, answer in zip(asked, answers, strict=True):
        made = plain_greedy(model, prompt, 14)
        assert answer.num_tokens == len(made)
        assert answer.finish == ("end" if made[-1] == tokenizer.eos_token_id else "length")
        assert answer.text == tokenizer.decode(made, skip_special_tokens=True)


def test_a_models_own_penalties_and_temperature_do_not_count(model, tokenizer):
    asked = prompts(6)
    backend = TransformersBackend(model, tokenizer, Decoding(14))
    plain = backend.generate(asked, max_new_tokens=14, seeds=[])
    own = model.generation_config
    try:
        model.generation_config = type(own)(
            repetition_penalty=9.0, do_sample=True, temperature=5.0, no_repeat_ngram_size=1,
            eos_token_id=own.eos_token_id,
        )  # fmt: skip
        brought = model.generation_config
        assert model.generate(torch.tensor([asked[0]]), max_new_tokens=14)[0, len(asked[0]) :].tolist() != plain[0]
        assert backend.generate(asked, max_new_tokens=14, seeds=[]) == plain
        assert model.generation_config is brought
    finally:
        model.generation_config = own


def test_every_prompt_has_the_room_that_it_has_alone(model, tokenizer):
    lengths = [5, 30, 40, 40, 45, 47, 48, 60, 6]
    batches, too_long = plan_batches(lengths, context=CONTEXT, max_new_tokens=14, batch_size=4)
    assert sorted(too_long) == [6, 7]
    assert [[lengths[index] for index in batch] for batch in batches] == [[47], [45], [40, 40], [30, 6, 5]]
    backend = TransformersBackend(model, tokenizer, Decoding(14))
    assert backend.context == CONTEXT
    long = [9, 10] * 22
    (answer,) = answers_of(model, tokenizer, [long])
    assert answer.num_tokens <= CONTEXT - len(long)


def test_no_limit_and_full_batches():
    batches, too_long = plan_batches([3, 1, 2, 9], context=None, max_new_tokens=10_000, batch_size=2)
    assert (batches, too_long) == ([[3, 0], [2, 1]], [])


def sampled(model, tokenizer, folder: Path, *, seed: int = 0, batch_size: int = 3, reverse: bool = False) -> list[str]:
    """Answers to ten items, two of which are the same prompt, in their order."""
    decoding = Decoding(14, temperature=1.5, top_p=0.9, seed=seed)
    asked = items(10)[:: -1 if reverse else 1]
    answers = answer_all(
        ask(asked, tokenizer), tokenizer, TransformersBackend(model, tokenizer, decoding), decoding,
        folder=folder, identity="a", batch_size=batch_size, label="answering",
    )  # fmt: skip
    return [answer.answer for answer in answers][:: -1 if reverse else 1]


def test_sampling_is_repeatable_and_differs_by_seed_and_item(model, tokenizer, tmp_path):
    first = sampled(model, tokenizer, tmp_path / "a")
    assert sampled(model, tokenizer, tmp_path / "b") == first
    assert sampled(model, tokenizer, tmp_path / "c", seed=1) != first
    # The prompts of items 0 and 5 are the same, and their answers are two samples.
    assert first[0] != first[5]


def test_a_sampled_answer_does_not_depend_on_its_batch(model, tokenizer, tmp_path):
    alone = sampled(model, tokenizer, tmp_path / "alone", batch_size=1)
    assert sampled(model, tokenizer, tmp_path / "threes") == alone
    assert sampled(model, tokenizer, tmp_path / "whole", batch_size=10) == alone
    assert sampled(model, tokenizer, tmp_path / "reverse", batch_size=4, reverse=True) == alone


def test_a_temperature_near_zero_is_greedy_and_no_number_is_no_answer():
    logits = torch.tensor([[3.0, 9.0, 8.999, -torch.inf]])
    assert SampledToken([1], temperature=1e-30, top_p=1.0)(logits, logits).argmax() == 1
    with pytest.raises(NumericsError, match="not finite"):
        SampledToken([1], temperature=1.0, top_p=0.9)(logits, torch.full((1, 4), torch.nan))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.7), (1.0, 0.3)])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float, top_p: float):
    logits = torch.tensor([2.0, 0.5, -1.0, 1.5, 0.0, -3.0])
    probabilities = (logits / temperature).softmax(0)
    order = probabilities.argsort(descending=True)
    before = probabilities[order].cumsum(0) - probabilities[order]
    kept = torch.zeros_like(probabilities).scatter(0, order[before < top_p], 1.0) * probabilities
    number = 40_000
    processor = SampledToken(range(number), temperature=temperature, top_p=top_p)
    scores = processor(torch.zeros(number, 1, dtype=torch.int64), logits.expand(number, -1))
    assert torch.equal((scores == 0).sum(1), torch.ones(number, dtype=torch.int64))
    shares = torch.bincount(scores.argmax(1), minlength=6) / number
    # Five standard deviations of a share.
    assert torch.allclose(shares, kept / kept.sum(), atol=5 * (0.25 / number) ** 0.5)
    assert shares[kept == 0].sum() == 0


# --- Keeping answers ---------------------------------------------------------------------------------------------


def items(count: int) -> list[PromptItem]:
    return [
        PromptItem("s", str(number), "harmful", ({"role": "user", "content": "how do i " + "break " * (number % 5)},))
        for number in range(count)
    ]


def answered(model, tokenizer, folder: Path, *, count: int = 10, batch_size: int = 3, identity: str = "a"):
    decoding = Decoding(6)
    return answer_all(
        ask(items(count), tokenizer), tokenizer, TransformersBackend(model, tokenizer, decoding), decoding,
        folder=folder, identity=identity, batch_size=batch_size, label="answering",
    )  # fmt: skip


class Counting(TransformersBackend):
    """Counts its answers, and may be interrupted."""

    def __init__(self, *args, stop_after: int = 10**9) -> None:
        super().__init__(*args)
        self.done, self.stop_after = 0, stop_after

    def continue_all(self, batches, **options):
        for made in super().continue_all(batches, **options):
            if self.done >= self.stop_after:
                raise KeyboardInterrupt
            self.done += len(made)
            yield made


def test_an_interrupted_run_goes_on_where_it_stopped(model, tokenizer, tmp_path):
    whole = answered(model, tokenizer, tmp_path / "whole")
    assert [answer.id for answer in whole] == [item.id for item in items(10)]
    decoding = Decoding(6)
    asked = ask(items(10), tokenizer)
    options = {"folder": tmp_path / "a", "identity": "a", "batch_size": 3, "label": "x"}
    stopped = Counting(model, tokenizer, decoding, stop_after=6)
    with pytest.raises(KeyboardInterrupt):
        answer_all(asked, tokenizer, stopped, decoding, **options)
    rest = Counting(model, tokenizer, decoding)
    assert answer_all(asked, tokenizer, rest, decoding, **options) == whole
    assert rest.done == 4
    none = Counting(model, tokenizer, decoding)
    assert answer_all(asked, tokenizer, none, decoding, **options) == whole
    assert none.done == 0


def test_a_run_that_is_asked_to_stop_ends_after_its_batch_and_goes_on(model, tokenizer, tmp_path, monkeypatch):
    whole = answered(model, tokenizer, tmp_path / "whole")
    shards = tmp_path / "a"
    monkeypatch.setattr(stopping, "requested", lambda: "SIGTERM" if len(list(shards.glob("*.parquet"))) == 2 else None)
    with pytest.raises(Preempted, match="stopped with 6 of 10 answers: stored; the same command goes on") as caught:
        answered(model, tokenizer, shards)
    assert caught.value.exit_code == 75
    monkeypatch.undo()
    assert answered(model, tokenizer, shards) == whole


def test_answers_of_something_else_are_not_taken(model, tokenizer, tmp_path):
    answered(model, tokenizer, tmp_path)
    backend = Counting(model, tokenizer, Decoding(6))
    options = {"folder": tmp_path, "batch_size": 3, "label": "x"}
    answer_all(ask(items(10), tokenizer), tokenizer, backend, Decoding(6), identity="another model", **options)
    assert backend.done == 10
    other = [PromptItem(item.suite, item.id, item.group, ({"role": "user", "content": "hi"},)) for item in items(10)]
    answer_all(ask(other, tokenizer), tokenizer, backend, Decoding(6), identity="another model", **options)
    assert backend.done == 20


def test_a_damaged_shard_is_made_again(model, tokenizer, tmp_path):
    whole = answered(model, tokenizer, tmp_path)
    shard = next(iter(tmp_path.glob("*.parquet")))
    shard.write_bytes(shard.read_bytes()[:50])
    assert answered(model, tokenizer, tmp_path) == whole


def test_a_prompt_longer_than_the_context_is_not_answered_and_not_cut(model, tokenizer, tmp_path):
    long = PromptItem("s", "long", "harmful", ({"role": "user", "content": "break " * 60},))
    decoding = Decoding(6)
    found = answer_all(
        ask([*items(2), long], tokenizer), tokenizer, TransformersBackend(model, tokenizer, decoding), decoding,
        folder=tmp_path, identity="a", batch_size=4, label="x",
    )  # fmt: skip
    assert [answer.answer is None for answer in found] == [False, False, True]
    assert (found[2].finish, found[2].num_tokens) == ("too_long", 0)
    assert found[2].num_prompt_tokens >= 60


def test_a_prompt_without_tokens_is_refused_before_anything_is_answered(model, tokenizer, tmp_path):
    asked = ask(items(3), tokenizer)
    asked.ids[1] = []
    decoding = Decoding(6)
    with pytest.raises(InputError, match="the prompt of s, item 1, has no tokens"):
        answer_all(
            asked, tokenizer, TransformersBackend(model, tokenizer, decoding), decoding,
            folder=tmp_path, identity="a", batch_size=4, label="x",
        )  # fmt: skip
    assert not list(tmp_path.glob("*.parquet"))


def test_stored_answers_are_read_as_they_were(tmp_path):
    answers = [
        StoredAnswer("s", "1", "harmful", "", "why?", "<user> why?", "no\n", None, "end", 3, 2),
        StoredAnswer("s", "2", "harmless", "kind", "é", "<user> é", None, "x", "too_long", 300, 0),
    ]
    write_generations(tmp_path, answers, {"s": {"decoding": "greedy"}})
    assert read_generations(tmp_path) == answers
    store = AnswerStore(tmp_path / "shards", "a")
    (tmp_path / "shards").mkdir()
    store.append(answers)
    assert list(store.load().values()) == answers
    assert AnswerStore(tmp_path / "shards", "b").load() == {}


def test_answers_that_were_stored_before_contexts_were_are_read(tmp_path):
    import pyarrow.parquet as parquet

    answer = StoredAnswer("s", "1", "harmful", "", "cup\n\n---\n\nwhy?", "<user> why?", "no", None, "end", 3, 2, "cup")
    write_generations(tmp_path, [answer], {})
    assert read_generations(tmp_path) == [answer]
    assert answer.request == "why?"
    file = tmp_path / "generations.parquet"
    parquet.write_table(parquet.read_table(file).drop(["context"]), file)
    (found,) = read_generations(tmp_path)
    assert (found.context, found.request) == ("", answer.question)
    parquet.write_table(parquet.read_table(file).drop(["prompt"]), file)
    with pytest.raises(ArtifactError):
        read_generations(tmp_path)
