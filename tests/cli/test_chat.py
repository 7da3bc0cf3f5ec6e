"""``ogpsa chat``: the answers are those of evaluation, pieces make up the whole, and it serves pipes and terminals."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from data_registry.core.errors import InputError
from data_registry.testbed import suite as testbed_items
from pipelines.commands.chat import run
from pipelines.configs.chat import ChatConfig
from pipelines.evaluation.answering import chat
from tests.cli.conftest import TESTBED_MODEL, Cli

ITEMS = [item for item in testbed_items.items() if item.group in ("fact", "kind")][::30]
QUESTIONS = [item.messages[-1]["content"] for item in ITEMS]


def greedy(question: str) -> str:
    """The answer by a plain loop over the whole sequence, without cache, streamer or template code of ours."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TESTBED_MODEL)
    model = AutoModelForCausalLM.from_pretrained(TESTBED_MODEL).eval()
    ids = tokenizer(f"<user> {question} <bot>", add_special_tokens=False)["input_ids"]
    made: list[int] = []
    while len(made) < 24 and tokenizer.eos_token_id not in made:
        with torch.no_grad():
            made.append(int(model(torch.tensor([ids + made])).logits[0, -1].argmax()))
    return str(tokenizer.decode(made, skip_special_tokens=True))


def speaker(**options: object) -> chat.Speaker:
    (found,) = run(ChatConfig(model=str(TESTBED_MODEL), max_new_tokens=24, **options))
    return found


def test_pieces_make_up_the_greedy_answer() -> None:
    talker = speaker()
    for question in QUESTIONS:
        talker.reset()
        pieces: list[str] = []
        reply = talker.answer(question, pieces.append)
        assert reply.text == "".join(pieces) == greedy(question)
        assert len(pieces) > 1
        assert not reply.is_cut
    assert [message["role"] for message in talker.messages] == ["user", "assistant"]


def test_the_conversation_is_remembered_until_it_is_reset() -> None:
    talker = speaker()
    alone = talker.answer(QUESTIONS[1], lambda piece: None).text
    talker.answer(QUESTIONS[0], lambda piece: None)
    assert [message["content"] for message in talker.messages[::2]] == [QUESTIONS[1], QUESTIONS[0]]
    talker.reset()
    assert talker.answer(QUESTIONS[1], lambda piece: None).text == alone


def test_sampling_is_seeded() -> None:
    def sampled(seed: int) -> list[str]:
        talker = speaker(temperature=3.0, seed=seed)
        return [talker.answer(question, lambda piece: None).text for question in QUESTIONS]

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_an_answer_can_be_stopped_and_the_conversation_goes_on() -> None:
    talker = speaker()

    def stop(piece: str) -> None:
        raise KeyboardInterrupt

    reply = talker.answer(QUESTIONS[0], stop)
    assert reply.is_cut
    assert reply.num_tokens == 1
    assert talker.messages[-1] == {"role": "assistant", "content": reply.text}
    assert not talker.answer(QUESTIONS[1], lambda piece: None).is_cut


def test_what_does_not_fit_is_refused() -> None:
    talker = speaker()
    with pytest.raises(InputError, match="takes at most") as caught:
        talker.answer("what " * 5000, lambda piece: None)
    assert "/reset" in str(caught.value)
    assert talker.messages == []
    with pytest.raises(InputError, match="the testbed chat template knows the roles user and assistant"):
        speaker(system="Be kind.")


def test_a_pipe_gets_one_line_for_each_message(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [QUESTIONS[0], "", "/reset", QUESTIONS[1], "/rest", "/quit", QUESTIONS[2]]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    outcome = cli("chat", TESTBED_MODEL, "--max-new-tokens", "24")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [greedy(QUESTIONS[0]), greedy(QUESTIONS[1])]
    assert "there is no /rest (did you mean '/reset'?)" in outcome.err


def test_two_models_answer_in_turn_on_a_pipe(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(QUESTIONS)))
    same = ("--against", TESTBED_MODEL, "--max-new-tokens", "24", "--each-alone")
    outcome = cli("chat", TESTBED_MODEL, *same)
    expected = [f"{TESTBED_MODEL}\t{greedy(question)}" for question in QUESTIONS for _ in "ab"]
    assert outcome.out.splitlines() == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chat"], "MODEL is required"),
        (["chat", "nowhere/at/all"], "does not exist"),
        (["chat", TESTBED_MODEL, "--against", "nowhere/at/all"], "does not exist"),
        (["chat", TESTBED_MODEL, "--top-p", "0.5"], "--top-p needs --temperature"),
        (["chat", TESTBED_MODEL, "--chat-template", "none.jinja"], "none.jinja"),
    ],
)
def test_bad_input(arguments: list[str | Path], says: str, cli: Cli) -> None:
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert says in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


@pytest.mark.slow
def test_on_a_terminal_two_models_stand_side_by_side() -> None:
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    command = [sys.executable, "-m", "ogpsa_cli", "chat", str(TESTBED_MODEL), "--against", str(TESTBED_MODEL)]
    # The terminal is to say how wide it is, not what the tests were started from.
    outside = ("NO_COLOR", "COLUMNS", "LINES")
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
        env={name: value for name, value in os.environ.items() if name not in outside} | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    try:
        seen = _until(ours, "> ")
        assert "/reset begins anew" in seen
        os.write(ours, (QUESTIONS[0] + "\n").encode())
        seen = _until(ours, "tokens,", "\n> ")
        assert any(line.count(greedy(QUESTIONS[0])) == 2 for line in seen.splitlines()), seen
        os.write(ours, b"\x04")
        assert process.wait(timeout=600) == 0
    finally:
        process.kill()
        os.close(ours)


def _until(terminal: int, *texts: str, timeout_s: float = 600) -> str:
    """What a terminal shows until all of these have come in turn."""
    seen, rest, deadline = "", list(texts), time.monotonic() + timeout_s
    at = 0
    while rest and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.5)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace").replace("\r", "")
        while rest and (found := seen.find(rest[0], at)) >= 0:
            at = found + len(rest.pop(0))
    assert not rest, seen
    return seen
