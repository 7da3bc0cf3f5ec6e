"""Damaged files of every format end in rows or in an error for the user: never by a signal, never as a bug."""

import json
import subprocess
import sys


def test_mutated_files_are_read_or_refused(tmp_path):
    command = [sys.executable, "-m", "tests.data_registry.mutations", str(tmp_path), "160", "20260"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, (ended.stdout[-2000:], ended.stderr[-2000:])
    outcomes = json.loads(ended.stdout.splitlines()[-1])
    assert sum(outcomes.values()) == 160
    # Most are refused; were all of them, or none, the campaign would not try what it is for.
    assert outcomes["refused"] > 80
    assert outcomes["all rows"] > 16
