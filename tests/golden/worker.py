"""Runs several command lines in this process, or in every rank of a job, and keeps what each of them said.

``python -m tests.golden.worker COMMANDS SAID``: a JSON list of ``{"name", "argv"}``, and the file for the answers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ogpsa_cli.__main__ import run


@contextmanager
def _captured(out: BinaryIO, err: BinaryIO) -> Iterator[None]:
    """Send what is written to standard output and error, by whatever means, to these files."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, original in enumerate(kept, start=1):
            os.dup2(original, descriptor)
            os.close(original)


def _answer(argv: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _captured(out, err):
            code = run(argv)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode())
    return {"argv": argv, "code": code, "out": texts[0], "err": texts[1]}


def _forget_engine() -> None:
    """Let the next command start another engine in this process, as if it were a new one."""
    if "accelerate" not in sys.modules:
        return
    import gc

    from accelerate.state import AcceleratorState, GradientState, PartialState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    # Models are loaded in shards as long as an earlier trainer's ZeRO 3 configuration is remembered.
    unset_hf_deepspeed_config()
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    PartialState._reset_state()
    gc.collect()
    # What is left are the libraries: no later collection needs to walk through them again.
    gc.freeze()


def main(commands: Path, said: Path) -> None:
    """Run the commands in their order; rank zero writes what they said."""
    answers = {}
    for command in json.loads(commands.read_text()):
        answers[command["name"]] = answer = _answer(command["argv"])
        _forget_engine()
        if command["must_succeed"] and answer["code"] != 0:
            sys.exit(f"{' '.join(answer['argv'])} ended with {answer['code']}:\n{answer['out']}\n{answer['err']}")
    if os.environ.get("RANK", "0") == "0":
        said.write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
