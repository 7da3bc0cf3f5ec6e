"""The short form of the races; ``python -m tests.faults.races`` runs more rounds."""

from __future__ import annotations

from pathlib import Path

from tests.faults.races import race


def test_commands_that_race_for_one_place_leave_it_whole(tmp_path: Path) -> None:
    outcomes = race(tmp_path, seed=1)
    assert outcomes
