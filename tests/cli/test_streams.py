"""Standard streams that are closed, or that nobody reads: the work is done, and nothing is printed into a file."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SETTLED = """
import os, sys
from ogpsa_cli import streams
streams.settle()
report = open(sys.argv[1], "w")
print("out"); sys.stdout.flush()
print("err", file=sys.stderr)
os.write(1, b"raw\\n"); os.write(2, b"raw\\n")
report.write(repr(sys.stdin.read()) + str(report.fileno() > 2))
child = os.system("echo child; echo child >&2")
report.write(str(child)); report.close()
"""


def run(code: str, *arguments: str | Path, closed: tuple[int, ...] = (), **options: object) -> subprocess.Popen[bytes]:
    def close() -> None:
        for number in closed:
            os.close(number)

    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        preexec_fn=close,
        **settings,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    "closed", [each for number in range(4) for each in itertools.combinations((0, 1, 2), number)], ids=str
)
def test_a_closed_stream_leads_nowhere(tmp_path: Path, closed: tuple[int, ...]) -> None:
    process = run(_SETTLED, tmp_path / "report", closed=closed)
    out, err = process.communicate()
    assert process.returncode == 0, err
    # The child's exit code too: with its standard output closed, echo would fail.
    assert (tmp_path / "report").read_text() == "''True0"
    assert out.split() == ([] if 1 in closed else [b"out", b"raw", b"child"])
    assert err.split() == ([] if 2 in closed else [b"err", b"raw", b"child"])


def test_a_stream_that_cannot_be_written_leads_nowhere(tmp_path: Path) -> None:
    """A shell opens its script under the number of a stream that was closed, and hands that on."""
    (tmp_path / "script").write_text("#!/bin/sh\n")
    with (tmp_path / "script").open() as script:
        process = run(_SETTLED, tmp_path / "report", stdout=script, stderr=script)
        assert process.wait() == 0
    assert (tmp_path / "report").read_text() == "''True0"


_MUCH = """
import sys
from ogpsa_cli import streams
streams.settle()
for number in range(3000):
    print("a line of the log that is long enough to fill a pipe", file=sys.stderr)
    sys.stderr.flush()
print("done")
"""


def test_the_work_goes_on_when_nobody_reads_its_log_any_more() -> None:
    process = run(_MUCH)
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.stdout is not None
    assert process.stdout.read() == b"done\n"
    assert process.wait() == 0


def test_a_full_disk_under_the_log_is_no_end_of_the_work() -> None:
    with open("/dev/full", "w") as full:
        process = run(_MUCH, stderr=full)
        assert process.stdout is not None
        assert process.stdout.read() == b"done\n"
        assert process.wait() == 0


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("no-such-command", 2)])
def test_the_command_ends_as_it_would(closed: tuple[int, ...], argument: str, code: int) -> None:
    entry = "import sys; from ogpsa_cli.__main__ import main; main()"
    process = run(entry, argument, closed=closed)
    out, err = process.communicate()
    assert process.returncode == code, err
    assert b"Traceback" not in out + err
