"""Signals at points of every command; ``python -m tests.faults.stops`` shows them with times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.stops import SERIES

ROOT = Path(__file__).resolve().parents[2]
# The others are left to those who run it by hand: their inputs take longer to make than they to stop.
COMMANDS = ("prepare-data", "build-basis", "train-sft", "train-dpo", "evaluate")


@pytest.mark.slow
@pytest.mark.distributed
def test_every_command_stops_at_every_point_and_then_makes_what_it_would_have_made(tmp_path: Path) -> None:
    chosen = [word for name in COMMANDS for word in ("--command", name)]
    run = subprocess.run(
        [sys.executable, "-m", "tests.faults.stops", *chosen, "--json", tmp_path / "found.json"],
        cwd=ROOT, capture_output=True, text=True, timeout=3600, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    # A finding for each stop, and one for the comparison at the end of each series.
    assert len(found) == sum(len(SERIES[name].stops) + 1 for name in COMMANDS)
    assert not [one["problems"] for one in found if one["problems"]]
