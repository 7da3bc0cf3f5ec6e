"""The short form of the campaign; the long one is ``python -m tests.faults.campaign``, its table in docs/faults.md."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig, option
from tests.faults import comparison
from tests.faults.trials import DISK_FULL, KILLED, KILLED_WRITING, TRUNCATED, UNFINISHED

ROOT = Path(__file__).resolve().parents[2]
WRITERS = ("prepare-data --overwrite", "train-sft --overwrite", "evaluate", "slurm")


@pytest.mark.slow
@pytest.mark.distributed
def test_short_campaign(tmp_path: Path) -> None:
    chosen = [word for name in (*WRITERS, "doctor") for word in ("--command", name)]
    run = subprocess.run(
        [sys.executable, "-m", "tests.faults.campaign", "--kills", "6", "--full", "1", "--cut", "1", *chosen,
         "--json", tmp_path / "found.json"],
        cwd=ROOT, capture_output=True, text=True, timeout=3600, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    trials: list[dict[str, Any]] = json.loads((tmp_path / "found.json").read_text())["trials"]
    struck = [(trial["command"], trial["kind"]) for trial in trials if trial["struck"]]
    for name in WRITERS:
        assert {(name, KILLED_WRITING), (name, DISK_FULL)} <= set(struck), run.stdout
    assert ("doctor", KILLED) in struck
    kinds = {kind for _, kind in struck}
    assert kinds >= {KILLED, TRUNCATED, UNFINISHED}, run.stdout
    # Again by hand, so that a campaign that forgets to look is noticed.
    reruns = [trial for trial in trials if trial["kind"] != TRUNCATED]
    assert len(reruns) >= 10
    assert all(trial["finished"] and not trial["differing"] and not trial["lost"] for trial in reruns)


# --- What the campaign judges with ---


class Sample(CommandConfig):
    steps: int = option(1, "Steps.")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with write_artifact(tmp_path / "whole", "dataset", Sample(), []) as writer:
        (writer.path / "rows").write_text("0123456789")
    return tmp_path


def test_runs_at_other_times_are_equal(place: Path) -> None:
    before = comparison.snapshot(place)
    manifest = json.loads((place / "whole" / "manifest.json").read_text())
    manifest |= {"started": "2001", "duration_s": 77.0}
    (place / "whole" / "manifest.json").write_text(json.dumps(manifest))
    assert comparison.differences(comparison.snapshot(place), before) == []
    (place / "whole" / "manifest.json").write_text(json.dumps({**manifest, "identity": "another"}))
    assert comparison.differences(comparison.snapshot(place), before) == ["whole/manifest.json differs"]


@pytest.mark.parametrize("times", ['{"train_runtime": 1.0}', '{"train_runtime": 2.0}'])
def test_times_in_the_log_are_left_out_and_losses_are_not(tmp_path: Path, times: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1.0}\n{"train_runtime": 1.0}\n')
    before = comparison.snapshot(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1.0}\n' + times + "\n")
    assert comparison.differences(comparison.snapshot(tmp_path), before) == []
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1.0000001}\n' + times + "\n")
    assert comparison.differences(comparison.snapshot(tmp_path), before) == ["metrics.jsonl differs"]


def test_leftovers_losses_and_changes_are_told_apart(place: Path) -> None:
    before = comparison.snapshot(place)
    (place / "whole" / "rows").write_text("012345678X")
    (place / ".whole.partial-1").mkdir()
    (place / ".whole.partial-1" / "rows").write_text("0")
    found = comparison.snapshot(place)
    assert comparison.lost(found, before) == ["whole/rows is lost"]
    assert comparison.differences(found, before) == ["whole/rows differs", ".whole.partial-1/rows is left over"]
    (place / "made-for-nothing").mkdir()
    assert "made-for-nothing is left over" in comparison.differences(comparison.snapshot(place), before)
    shutil.rmtree(place / "whole")
    assert "whole/rows is missing" in comparison.differences(comparison.snapshot(place), before)


def test_what_is_half_written_is_seen(place: Path) -> None:
    before = comparison.snapshot(place)
    assert comparison.half_written(place, before) == []
    (place / ".aside").mkdir()
    (place / ".aside" / "rows").write_text("hidden, and without a manifest")
    assert comparison.half_written(place, before) == []
    (place / "out").mkdir()
    (place / "out" / "rows").write_text("visible")
    assert comparison.half_written(place, before) == ["out/rows lies outside of any artifact"]
    assert comparison.half_written(place, before, comparison.snapshot(place)) == []
    as_whole = comparison.snapshot(place)
    (place / "out" / "rows").write_text("vis")
    assert comparison.half_written(place, before, as_whole) == ["out/rows lies outside of any artifact"]
    shutil.rmtree(place / "out")
    os.truncate(place / "whole" / "rows", 3)
    assert comparison.half_written(place, before) == ["whole does not verify: rows has 3 bytes, not 10"]
