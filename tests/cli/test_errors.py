"""How failures reach the user: one error, the right exit code, a traceback only when asked for."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_registry.core.errors import (
    ArtifactError,
    BasisMismatchError,
    ConfigError,
    EngineError,
    InputError,
    NumericsError,
    OgpsaError,
    Preempted,
)
from ogpsa_cli.commands import doctor
from tests.cli.conftest import Cli, run_process


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> object:
    """Runs a command that raises what it is given."""

    def call(error: BaseException, *arguments: str) -> object:
        def execute(config: object) -> int:
            raise error

        monkeypatch.setattr(doctor, "execute", execute)
        return cli("doctor", *arguments)

    return call


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (InputError("x"), 2),
        (EngineError("x"), 2),
        (ArtifactError("x"), 3),
        (BasisMismatchError("x"), 3),
        (NumericsError("x"), 4),
    ],
)
def test_our_errors_have_their_exit_codes(failing, error: OgpsaError, code: int) -> None:
    outcome = failing(error)
    assert (outcome.code, outcome.out, outcome.err) == (code, "", "error: x\n")


def test_being_preempted_is_no_error(failing) -> None:
    outcome = failing(Preempted("stopped, saved"))
    assert (outcome.code, outcome.out, outcome.err) == (75, "", "stopped, saved\n")


def test_an_error_says_what_where_and_what_to_do(failing) -> None:
    outcome = failing(InputError("it is broken", where="row 3", fix="mend it"))
    assert outcome.err == "error: it is broken\n  where: row 3\n  fix:   mend it\n"


def test_several_problems_are_one_error(failing) -> None:
    outcome = failing(ConfigError(["first", "second"], where="c.yaml"))
    assert outcome.err == "error: 2 problems:\n  - first\n  - second\n  where: c.yaml\n"


def test_verbose_adds_the_traceback(failing) -> None:
    outcome = failing(InputError("it is broken"), "--verbose")
    assert "Traceback" in outcome.err
    assert outcome.err.endswith("error: it is broken\n")


def test_a_bug_is_called_a_bug_and_keeps_its_traceback(failing) -> None:
    outcome = failing(KeyError("weights"))
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert outcome.err.startswith("error: this is a bug of ogpsa: KeyError: 'weights'\n  where: ")
    kept = re.search(r"traceback in (\S+)", outcome.err)
    assert kept is not None
    text = Path(kept.group(1)).read_text()
    Path(kept.group(1)).unlink()
    assert "KeyError: 'weights'" in text


def test_a_bug_without_room_for_its_traceback(failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    outcome = failing(RuntimeError(""))
    assert "RuntimeError: no message" in outcome.err
    assert "run it again with --verbose" in outcome.err


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class SafetensorError(Exception):
    """Named as that of the files of weights."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                     "tried to allocate 40000000000 bytes. Error code 12 (Cannot allocate memory)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: not enough memory: you tried to "
                     "allocate 4000000000000 bytes."),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        SafetensorError("Error while deserializing header: I/O error: Cannot allocate memory (os error 12)"),
    ],
)  # fmt: skip
def test_too_little_memory_is_no_bug(failing, error: Exception) -> None:
    outcome = failing(error)
    assert outcome.code == 1
    assert outcome.err.startswith("error: out of memory")
    assert "--batch-size" in outcome.err


def test_memory_that_torch_cannot_get_is_no_bug(failing) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 62, dtype=torch.uint8)
    outcome = failing(caught.value)
    assert outcome.err.startswith("error: out of memory")


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("out of memory"), OSError(2, "none")]
)
def test_other_errors_are_not_taken_for_it(failing, error: Exception) -> None:
    assert "out of memory: " not in failing(error).err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_what_the_file_system_refuses_is_no_bug(failing, number: int) -> None:
    outcome = failing(OSError(number, os.strerror(number), "some/file"))
    assert outcome.code == 2
    assert outcome.err == f"error: 'some/file' could not be written or read: {os.strerror(number)}\n"


def test_an_interrupt_is_no_error(failing) -> None:
    outcome = failing(KeyboardInterrupt())
    assert (outcome.code, outcome.err) == (130, "interrupted\n")


def test_a_broken_pipe_elsewhere_is_not_swallowed(failing) -> None:
    outcome = failing(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert outcome.code == 1
    assert "bug of ogpsa" in outcome.err


def test_a_reader_that_goes_away_is_met_in_silence(tmp_path: Path) -> None:
    command = f"{sys.executable} -m ogpsa_cli train-sft --json-schema | head -c 10; echo :${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert result.stderr == ""
    assert result.stdout.rpartition(":")[2].strip() in ("0", "141")


STOP = "stopped ({}): nothing half-written is left; run the same command again\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_real_process_with_75(number: signal.Signals) -> None:
    code = """
import sys, time
from ogpsa_cli import __main__
from ogpsa_cli.commands import doctor
def execute(config):
    print("up", file=sys.stderr, flush=True)
    while True:  # a signal between the last instruction and one long sleep would be heard when that sleep ends
        time.sleep(0.05)
doctor.execute = execute
sys.argv = ["ogpsa", "doctor"]
__main__.main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline() == "up\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (75, STOP.format(number.name))


def test_errors_go_to_standard_error_and_results_to_standard_output(tmp_path: Path) -> None:
    outcome = run_process("inspect", "nothing", cwd=tmp_path)
    assert (outcome.out, outcome.code) == ("", 2)
    outcome = run_process("--version", cwd=tmp_path)
    assert (outcome.err, outcome.code) == ("", 0)


PRINTING = """
import os, sys
from ogpsa_cli import __main__, console
from ogpsa_cli.commands import doctor
def execute(config):
    import logging
    handler = logging.StreamHandler(sys.stdout)  # as a library that is imported now
    print("a library's print")
    os.write(1, b"a library's C code\\n")
    handler.stream.write("a library's log\\n")
    console.write("the result")
    return 0
doctor.execute = execute
sys.argv = ["ogpsa", "doctor"]
__main__.main()
"""


def test_standard_output_is_for_results_alone(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "the result\n"
    assert sorted(result.stderr.splitlines()) == ["a library's C code", "a library's log", "a library's print"]


@pytest.mark.parametrize("arguments", ["train-sft --json-schema", "train-sft --help", "prepare-data --list", "--help"])
def test_every_reader_may_go_away(arguments: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m ogpsa_cli {arguments} | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert "rror" not in result.stderr


def test_a_bar_that_an_exception_left_standing_does_not_swallow_the_error(cli: Cli, failing) -> None:
    from pipelines.core import progress

    class Standing:
        stopped = False

        def stop(self) -> None:
            Standing.stopped = True

    progress._shown.append(Standing())  # type: ignore[arg-type]
    failing(KeyboardInterrupt())
    assert Standing.stopped


def test_a_terminal_without_our_characters_loses_no_result(tmp_path: Path) -> None:
    outcome = run_process("prepare-data", "gsm8k", "--describe", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert outcome.code == 0
    assert "openai/gsm8k" in outcome.out
