"""Answers while a model is trained: right, at the right steps, sent to trackers, and without a trace."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from data_registry.core.errors import InputError, Preempted
from pipelines.commands import train_dpo, train_npo, train_sft
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.evaluation.answering.asking import answers_to
from pipelines.sampling.conversations import read_conversations
from pipelines.tokens.chat_template import render_prompt
from pipelines.tokens.tokenizer import load_tokenizer
from pipelines.training import progress_samples
from pipelines.training.progress_samples import MOST_PROMPTS, Question, check_room, questions, untouched
from pipelines.training.trackers import show_samples
from tests.distributed import worlds
from tests.invariant.resume_worker import call_stopped

ASKED = ["who guards the garden", "name a colour", "count the doors of the tower"]
KINDS: dict[str, tuple[Any, Any]] = {
    "sft": (TrainSftConfig, train_sft.run),
    "dpo": (TrainDpoConfig, train_dpo.run),
    "npo": (TrainNpoConfig, train_npo.run),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("progress-samples")
    worlds.make_model(directory / "model", dropout=0.1)
    worlds.make_data(directory / "sft", 16, seed=1)
    worlds.make_pairs(directory / "pairs", 16, seed=2)
    (directory / "prompts.txt").write_text("\n".join(ASKED) + "\n")
    return directory


def config_of(world: Path, kind: str, out: Path, **given: Any) -> Any:
    values = {"precision": "fp32", "learning_rate": 3e-3, "batch_size": 2, "accumulation": 2, "log_every": 1}
    data = world / ("sft" if kind == "sft" else "pairs")
    return KINDS[kind][0](model=str(world / "model"), data=data, out=out, **{"max_steps": 5, **values, **given})


def sampling(world: Path, every: int, **given: Any) -> dict[str, Any]:
    return {"sample_every": every, "sample_prompts": world / "prompts.txt", "sample_tokens": 6, **given}


def run(world: Path, kind: str, out: Path, **given: Any) -> Path:
    made: Path = KINDS[kind][1](config_of(world, kind, out, **given)).path
    return made


def samples(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    (file,) = (run / "model").glob("*.safetensors")
    return load_file(file)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("lora", [{}, {"lora_rank": 2, "lora_dropout": 0.1}], ids=["all", "lora"])
def test_a_run_that_is_asked_has_the_weights_of_one_that_is_not(
    world: Path, kind: str, lora: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawing(backend: Any, *others: Any) -> Any:
        # As a model may that draws in evaluation mode too.
        torch.rand(3)
        return answers_to(backend, *others)

    monkeypatch.setattr(progress_samples, "answers_to", drawing)
    asked = run(world, kind, tmp_path / "asked", **lora, **sampling(world, 2, sample_temperature=0.8))
    assert same(weights(asked), weights(run(world, kind, tmp_path / "plain", **lora)))
    assert [line["step"] for line in samples(asked)] == [step for step in (2, 4, 5) for _ in ASKED]


def test_greedy_answers_are_those_of_the_saved_model(world: Path, tmp_path: Path) -> None:
    made = run(world, "sft", tmp_path / "run", **sampling(world, 5))
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(made / "model")
    model = AutoModelForCausalLM.from_pretrained(made / "model", dtype=torch.float32).eval()
    lines = samples(made)
    assert [line["prompt"] for line in lines] == ASKED
    for line, text in zip(lines, ASKED, strict=True):
        ids = tokenizer(
            render_prompt([{"role": "user", "content": text}], tokenizer), add_special_tokens=False, return_tensors="pt"
        )["input_ids"]
        new = []
        for _ in range(6):
            token = int(model(ids).logits[0, -1].argmax())
            new.append(token)
            if token == tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, torch.tensor([[token]])], 1)
        assert line["answer"] == tokenizer.decode(new, skip_special_tokens=True)
        finish = "stop" if new[-1] == tokenizer.eos_token_id else "length"
        assert (line["finish"], line["tokens"]) == (finish, len(new))
        assert list(line) == ["step", "prompt", "answer", "finish", "tokens"]
    assert "sampling_s" in json.loads((made / "manifest.json").read_text())["summary"]


def test_lines_are_neither_lost_nor_doubled_when_a_run_is_stopped(world: Path, tmp_path: Path) -> None:
    whole = run(world, "sft", tmp_path / "whole", **sampling(world, 1))
    config = config_of(world, "sft", tmp_path / "stopped", save_every=2, **sampling(world, 1))
    assert call_stopped(config, after=3).startswith(str(Preempted.exit_code))
    (partial,) = tmp_path.glob(".stopped*partial*")
    # As a kill leaves it: lines beyond the checkpoint, the last one torn.
    with (partial / "samples.jsonl").open("a") as stream:
        stream.write('{"step": 4, "prompt": "x"}\n{"step"')
    resumed = train_sft.run(config).path
    assert samples(resumed) == samples(whole)
    assert same(weights(resumed), weights(whole))


def test_the_last_step_of_a_run_that_is_stopped_early_is_asked(world: Path, tmp_path: Path) -> None:
    early = {"eval_split": 0.3, "eval_every": 1, "early_stopping": 1, "min_delta": 100.0}
    made = run(world, "sft", tmp_path / "run", **early, **sampling(world, 100))
    assert [line["step"] for line in samples(made)] == [2] * len(ASKED)


def test_temperature_length_and_seed_have_an_effect(world: Path, tmp_path: Path) -> None:
    def answers(**given: Any) -> list[str]:
        name = "-".join(map(str, given.values()))
        made = run(world, "sft", tmp_path / f"run-{name}", **{"max_steps": 1, **sampling(world, 1, **given)})
        return [line["answer"] for line in samples(made)]

    greedy, warm, short = answers(), answers(sample_temperature=3.0), answers(sample_tokens=2)
    assert greedy != warm
    assert all(long.startswith(cut) for long, cut in zip(greedy, short, strict=True))
    assert greedy != short


class Growing(nn.Module):
    """Replaces a buffer and counts, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.ones(3), persistent=False)
        self.longest, self.scaled = 8, False
        self.inner = nn.Dropout(0.5)

    def forward(self) -> None:
        self.frequencies.mul_(2)
        self.register_buffer("frequencies", torch.zeros(5), persistent=False)
        self.longest, self.scaled = 99, True


def test_buffers_numbers_modes_and_generators_are_put_back() -> None:
    module = Growing()
    module.inner.eval()
    before, state = module.frequencies, torch.get_rng_state()
    with untouched(module):
        assert not module.training
        module()
        torch.rand(3)
    assert module.frequencies is before
    assert module.frequencies.tolist() == [1, 1, 1]
    assert (module.longest, module.scaled, module.training, module.inner.training) == (8, False, True, False)
    assert torch.equal(torch.get_rng_state(), state)


def test_prompts_are_read_from_all_that_has_them(world: Path, tmp_path: Path) -> None:
    question, system = {"role": "user", "content": "b?"}, {"role": "system", "content": "short"}
    answer = {"role": "assistant", "content": "no"}
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a?"}\n{"prompt": "b?"}\n')
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps({"messages": m}) + "\n" for m in (
        [system, question, answer], [question],
    )))  # fmt: skip
    assert read_conversations(world / "prompts.txt") == [[{"role": "user", "content": text}] for text in ASKED]
    assert [m[0]["content"] for m in read_conversations(tmp_path / "rows.jsonl")] == ["a?", "b?"]
    assert read_conversations(tmp_path / "chat.jsonl") == [[system, question], [question]]
    prepared = read_conversations(world / "sft")
    assert all(messages[-1]["role"] == "user" for messages in prepared)
    tokenizer = load_tokenizer(world / "model")
    turns = [question, answer, {"role": "user", "content": "why?"}]
    (tmp_path / "turns.jsonl").write_text(json.dumps({"prompt": turns}))
    assert questions(tmp_path / "turns.jsonl", tokenizer)[0].text == "user: b?\nassistant: no\nuser: why?"
    (tmp_path / "many.txt").write_text("one more\n" * (MOST_PROMPTS + 3))
    assert len(questions(tmp_path / "many.txt", tokenizer)) == MOST_PROMPTS


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("empty.txt", "\n\n", "is empty"),
        ("none.jsonl", '{"x": 1}\n', "no column with prompts"),
        ("chat.jsonl", '{"messages": [{"role": "assistant", "content": "x"}]}\n', "do not end with what a user says"),
        ("roles.jsonl", '{"messages": [{"role": "bot", "content": "x"}]}\n', "no list of messages"),
        ("missing.txt", None, "neither a data set nor a prompt set"),
    ],
)
def test_prompts_that_cannot_be_asked_are_refused_before_a_model_is_loaded(
    world: Path, name: str, text: str | None, words: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    config = config_of(world, "sft", tmp_path / "run", sample_every=1, sample_prompts=tmp_path / name)
    with pytest.raises(InputError, match=words):
        train_sft.plan(config)


def test_a_prompt_without_room_for_an_answer_is_refused() -> None:
    check_room([Question("short", [1] * 7)], 8)
    with pytest.raises(InputError, match="prompt 2 of --sample-prompts has 8 tokens"):
        check_room([Question("short", [1]), Question("long", [1] * 8)], 8)


def test_trackers_get_the_answers(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Any] = []

    class TensorBoardCallback:
        tb_writer = SimpleNamespace(add_text=lambda *what: sent.append(what))

    class WandbCallback:
        _wandb = SimpleNamespace(
            run=object(), Table=lambda columns, data: (columns, data), log=lambda values: sent.append(values)
        )

    class BrokenCallback(WandbCallback):
        pass

    BrokenCallback.__name__ = "WandbCallback"
    BrokenCallback._wandb = SimpleNamespace(run=object())
    line = {"step": 3, "prompt": "p", "answer": "a ``` b", "finish": "stop", "tokens": 4}
    show_samples([TensorBoardCallback(), BrokenCallback(), WandbCallback(), object()], [line], 3)
    (tag, text, step), values = sent
    assert (tag, step) == ("samples/1", 3)
    assert "a ``` b" in text
    assert values == {"samples": (list(line), [list(line.values())]), "train/global_step": 3}
    assert "Wandb did not take the answers" in caplog.text
