"""Rows that come and go one by one: the answers of a plain loop, what is computed once, and models that it suits."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    JambaConfig,
    JambaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from data_registry.testbed import MODEL_DIR
from pipelines.evaluation.answering import row_support
from pipelines.evaluation.answering.backend import TransformersBackend
from pipelines.evaluation.answering.continuing import Continuation
from pipelines.evaluation.answering.requests import Request
from pipelines.evaluation.answering.row_support import takes_rows
from pipelines.evaluation.answering.shared_starts import groups_by_start
from pipelines.evaluation.contract.answer import Decoding
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from pipelines.tokens.tokenizer import load_tokenizer

SIZES = {
    "vocab_size": 120, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 400,
}  # fmt: skip
END = 7


def llama(**options) -> LlamaForCausalLM:
    torch.manual_seed(2)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, **options)).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # so that answers are not one word repeated
    return model


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return llama()


def plain(model, request: Request, ends=(END,)) -> list[int] | None:
    """One token after the other, without a cache and without padding; None where rounding might choose."""
    ids = list(request.ids)
    for _ in range(request.max_new_tokens):
        with torch.no_grad():
            logits, tokens = model(torch.tensor([ids])).logits[0, -1].topk(2)
        if logits[0] - logits[1] < 1e-3:
            return None
        ids.append(int(tokens[0]))
        if ids[-1] in ends:
            break
    return ids[len(request.ids) :]


def continued(model, requests: list[Request], batch_size: int, ends=(END,)) -> tuple[list[list[int]], Continuation]:
    continuation = Continuation(
        model, requests, batch_size=batch_size, ends=ends, choose=lambda logits, draws: logits.argmax(-1)
    )
    made = {request.number: tokens for request, tokens in continuation.run()}
    return [made[number] for number in range(len(requests))], continuation


def mixed_requests(seed: int, count: int) -> list[Request]:
    """Prompts of all kinds: with a long common start, with a part of it, repeated, of one token; several limits."""
    draw = random.Random(seed)
    common = [draw.randrange(10, 120) for _ in range(90)]
    prompts: list[list[int]] = []
    for _ in range(count):
        own = [draw.randrange(10, 120) for _ in range(draw.choice([1, 2, 5, 30]))]
        kind = draw.randrange(4)
        if kind == 3 and prompts:
            prompts.append(prompts[draw.randrange(len(prompts))])
        else:
            prompts.append([*common[: (0, 90, 40, 0)[kind]], *own])
    return [Request(ids, draw.choice([1, 3, 12, 25]), number=number) for number, ids in enumerate(prompts)]


@pytest.mark.parametrize(("seed", "batch_size"), [(1, 3), (2, 4), (3, 40)])
def test_rows_get_the_answers_of_a_plain_loop(model, seed: int, batch_size: int):
    requests = mixed_requests(seed, 12)
    made, _ = continued(model, requests, batch_size)
    expected = [plain(model, request) for request in requests]
    compared = [(mine, theirs) for mine, theirs in zip(made, expected, strict=True) if theirs is not None]
    assert len(compared) > 5
    assert [mine for mine, _ in compared] == [theirs for _, theirs in compared]
    assert len({len(mine) for mine, _ in compared}) > 2


def test_the_embedded_model_answers_as_it_does_in_closed_batches():
    tokenizer = load_tokenizer(MODEL_DIR)
    model = load_model(resolve_model(str(MODEL_DIR)), precision="fp32").eval()
    assert takes_rows(model)
    asked = ["where is the blue otter ?", "how do i break a lamp ?", "what is 3 + 4 ?", "hello"] * 2
    prompts = tokenizer([f"<user> {text} <assistant>" for text in asked], add_special_tokens=False)["input_ids"]
    backend = TransformersBackend(model, tokenizer, Decoding(24))
    requests = [Request(ids, 24, number=number) for number, ids in enumerate(prompts)]
    made = {each.number: tokens for some in backend.continue_all([requests], batch_size=3) for each, tokens in some}
    assert [made[number] for number in range(8)] == backend.generate(prompts, max_new_tokens=24, seeds=[])
    assert backend.peak_bytes > 0


class Counted:
    """Counts the tokens that a model computes."""

    def __init__(self, model) -> None:
        self.passes: list[tuple[int, int]] = []
        self._hook = model.register_forward_hook(self._look, with_kwargs=True)

    def _look(self, module, args, kwargs, output) -> None:
        self.passes.append(tuple(kwargs["input_ids"].shape))

    def close(self) -> tuple[int, list[int]]:
        """Tokens of prompts (all in passes longer than a token), and the rows of each other pass."""
        self._hook.remove()
        return sum(a * b for a, b in self.passes if b > 1), [a for a, b in self.passes if b == 1]


def test_a_common_start_and_a_repeated_prompt_are_computed_once(model):
    frame = [20 + number % 90 for number in range(150)]
    requests = [Request([*frame, 11 + number, 30], 4, number=number) for number in range(9)]
    counted = Counted(model)
    continued(model, requests, 4, ends=())
    prompt_tokens, rows = counted.close()
    # The start once; one token behind it for each prompt is a pass of one column.
    assert prompt_tokens == 150
    assert sum(rows) == 9 * 1 + 9 * 4
    counted = Counted(model)
    continued(model, [Request([*frame, 30], 4, number=number) for number in range(9)], 4, ends=())
    assert counted.close()[0] == 150


def test_rows_that_have_ended_leave_and_others_take_their_places(model):
    limits = [40, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    requests = [Request([10 + n, 20, 30], limit, number=n) for n, limit in enumerate(limits)]
    counted = Counted(model)
    made, _ = continued(model, requests, 4, ends=())
    _, rows = counted.close()
    assert [len(tokens) for tokens in made] == limits
    # Every token is computed once, none for a row that has ended, and three others are done while the first goes on.
    assert sum(rows) == sum(limits)
    assert len(rows) == 40
    assert max(rows) == 4


def test_memory_is_that_of_the_longest_rows_that_are_there_together(model):
    requests = [Request([10 + n % 90, 20, 30], 20, number=n) for n in range(60)]
    _, continuation = continued(model, requests, 4, ends=())
    bytes_of_a_token = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, numbers, bytes
    assert continuation.peak_bytes <= 4 * (23 + 64 + 3) * bytes_of_a_token


def test_a_seed_gives_one_answer_whatever_is_beside_it(model):
    backend = TransformersBackend(model, load_tokenizer(MODEL_DIR), Decoding(12, temperature=1.5, top_p=0.9))
    requests = [Request([10 + n // 2, 20, 30], 12, seed=n, number=n) for n in range(8)]

    def answers(order: list[Request], batch_size: int) -> list[list[int]]:
        made = {
            each.number: tokens
            for some in backend.continue_all([order], batch_size=batch_size)
            for each, tokens in some
        }
        return [made[number] for number in range(8)]

    alone = answers(requests, 1)
    assert alone[0] != alone[1]  # two samples of one prompt
    assert answers(requests, 3) == answers(requests[::-1], 8) == alone
    assert alone == [backend.generate([each.ids], max_new_tokens=12, seeds=[each.seed])[0] for each in requests]


# --- Which models ------------------------------------------------------------------------------------------------

_SMALL = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 2}
OTHERS = {
    "sliding window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)),
    "some layers with a window": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8)),
    "recurrent": lambda: MambaForCausalLM(MambaConfig(**_SMALL)),
    "frequencies of the longest row": lambda: llama(
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    ),
    "hybrid": lambda: JambaForCausalLM(JambaConfig(**SIZES, num_experts=2, attn_layer_period=2, attn_layer_offset=1)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_models_with_other_caches_are_answered_in_closed_batches(kind: str, monkeypatch):
    torch.manual_seed(0)
    model = OTHERS[kind]().eval()
    assert not takes_rows(model)
    backend = TransformersBackend(model, load_tokenizer(MODEL_DIR), Decoding(5))
    monkeypatch.setattr(backend, "_continue_rows", None)
    requests = [Request([10 + n, 20, 30], 5, number=n) for n in range(3)]
    made = [tokens for some in backend.continue_all([requests[:2], requests[2:]], batch_size=2) for _, tokens in some]
    alone = [backend.generate([each.ids], max_new_tokens=5, seeds=[])[0] for each in requests]
    assert [len(tokens) for tokens in made] == [5, 5, 5]
    assert made == alone


def test_mixed_precision_is_tried_with_its_own_rounding():
    model = llama()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert row_support._computed_in(model) == torch.bfloat16
        assert takes_rows(model)
    assert row_support._computed_in(model) == torch.float32


def test_a_model_whose_own_code_fails_is_answered_in_closed_batches():
    model = llama()

    def fail(*args, **kwargs):
        raise KeyError("a cache of this model's own")

    model.model.register_forward_pre_hook(fail)
    assert not takes_rows(model)


def test_learned_positions_are_plain(model):
    torch.manual_seed(0)
    assert takes_rows(
        GPT2LMHeadModel(GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=4, n_positions=64)).eval()
    )
    assert takes_rows(model)


class Misplaced(LlamaForCausalLM):
    """Counts its positions by its own cache, as code that comes with a model may."""

    def forward(self, input_ids, position_ids=None, past_key_values=None, logits_to_keep=0, **options):
        begun = 0 if past_key_values is None else past_key_values.get_seq_length()
        positions = torch.arange(begun, begun + input_ids.shape[1])[None]
        return super().forward(
            input_ids, position_ids=positions, past_key_values=past_key_values, logits_to_keep=logits_to_keep, **options
        )


def test_a_model_that_does_not_take_positions_is_found_out_by_its_logits():
    model = Misplaced(LlamaConfig(**SIZES)).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(20)
            layer.self_attn.k_proj.weight.mul_(20)
    assert row_support._has_plain_layers(model)
    assert not takes_rows(model)


# --- Groups ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 150), st.lists(st.integers(0, 2), max_size=4)), max_size=12)
)
def test_every_prompt_is_in_one_group_and_begins_with_its_start(parts):
    prompts = [[kind] * length + own for kind, length, own in parts]
    groups = groups_by_start(prompts)
    assert sorted(number for group in groups for number in group.members) == list(range(len(prompts)))
    for group in groups:
        assert len({tuple(prompts[number][: group.start]) for number in group.members}) == 1
        assert all(len(prompts[number]) >= group.start for number in group.members)
        lengths = [len(prompts[number]) for number in group.members]
        assert lengths == sorted(lengths, reverse=True)


def test_a_frame_within_a_frame_is_shared_and_short_starts_are_not():
    outer, inner = list(range(100)), list(range(200, 300))
    prompts = [[*outer, *inner, n] for n in range(4)] + [[*outer, 500 + n] for n in range(4)] + [[1, n] for n in (7, 8)]
    groups = groups_by_start(prompts)
    assert [(group.start, sorted(group.members)) for group in groups] == [
        (200, [0, 1, 2, 3]), (100, [4, 5, 6, 7]), (0, [8, 9])
    ]  # fmt: skip


def test_prompts_that_begin_each_other_are_grouped_in_time():
    # Each is the beginning of the next: a thousand levels, none of which may look at all prompts again.
    prompts = [[5] * length for length in range(1, 1000)]
    groups = groups_by_start(prompts)
    assert sorted(number for group in groups for number in group.members) == list(range(999))
    saved = sum(group.start * (len(group.members) - 1) for group in groups)
    assert saved > 0.5 * sum(map(len, prompts))
