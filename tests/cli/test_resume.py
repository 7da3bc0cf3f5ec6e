"""What may lie where a run was stopped: whole, damaged, foreign or hostile checkpoints, and what the command does."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from pathlib import Path
from unittest import mock

import pytest

from pipelines.engine import processes
from tests.cli.conftest import Cli, Outcome

pytestmark = pytest.mark.slow


class Marker:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


class Run:
    """A training command in a directory of its own, stopped at will."""

    def __init__(self, cli: Cli, made: Path, out: Path) -> None:
        self.cli, self.out, self.made = cli, out, made
        self.data = made / "safety"
        self.options = [
            "--precision", "fp32", "--batch-size", "2", "--accumulation", "2", "--epochs", "2",
            "--log-every", "1", "--num-procs", "1",
        ]  # fmt: skip

    def __call__(self, *more: str | Path, stop_after: int | None = None) -> Outcome:
        asked = iter(range(1, 1000))
        with mock.patch.object(processes, "stop_requested", side_effect=lambda device: next(asked) == stop_after):
            return self.cli(
                "train-sft", self.made / "model", "--data", self.data, *self.options, "--out", self.out, *more
            )

    @property
    def partial(self) -> Path:
        (found,) = self.out.parent.glob(f".{self.out.name}.partial-*")
        return found

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.partial / ".checkpoints").iterdir())

    def checkpoint(self, step: int) -> Path:
        return self.partial / ".checkpoints" / f"checkpoint-{step}"

    def steps_logged(self) -> list[int]:
        lines = (self.out / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines if '"loss"' in line]


@pytest.fixture
def stopped(cli: Cli, made: Path, tmp_path: Path) -> Run:
    """A run of six steps, stopped after the fourth, with checkpoints of the third and fourth."""
    run = Run(cli, made, tmp_path / "run")
    outcome = run("--save-every", "1", stop_after=4)
    assert outcome.code == 75, outcome.err
    assert "step 4 of 6: saved; the same command goes on from there" in outcome.err
    assert run.checkpoints() == ["checkpoint-3", "checkpoint-4"]
    return run


def assert_finished(run: Run, outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.err
    assert run.steps_logged() == [1, 2, 3, 4, 5, 6]
    assert not list(run.out.parent.glob(".run*"))
    assert not [path for path in run.out.rglob("*") if path.name.startswith(".") or path.suffix in (".pt", ".bin")]


def test_options_of_how_it_runs_may_differ(stopped: Run) -> None:
    outcome = stopped("--save-every", "2", "--keep", "1")
    assert "going on from step 4" in outcome.err
    assert_finished(stopped, outcome)


def test_the_last_k_are_kept(cli: Cli, made: Path, tmp_path: Path) -> None:
    run = Run(cli, made, tmp_path / "run")
    assert run("--save-every", "1", "--keep", "3", stop_after=5).code == 75
    assert run.checkpoints() == ["checkpoint-3", "checkpoint-4", "checkpoint-5"]
    assert run("--save-every", "0", "--keep", "1", stop_after=7).code == 0


def test_a_damaged_one_is_said_and_the_one_before_is_used(stopped: Run) -> None:
    (pieces,) = stopped.checkpoint(4).glob("pieces-*")
    content = bytearray(pieces.read_bytes())
    content[-5] ^= 1
    pieces.write_bytes(content)
    outcome = stopped()
    assert f"checkpoint-4 is damaged and not used: {pieces.name} was changed after it was written" in outcome.err
    assert "going on from step 3" in outcome.err
    assert_finished(stopped, outcome)


@pytest.mark.parametrize("name", ["progress.json", "manifest.json", "metrics.jsonl"])
def test_what_is_cut_short_is_damaged(stopped: Run, name: str) -> None:
    file = stopped.checkpoint(4) / name
    os.truncate(file, file.stat().st_size // 2)
    outcome = stopped()
    assert "checkpoint-4 is damaged and not used" in outcome.err
    assert "going on from step 3" in outcome.err
    assert_finished(stopped, outcome)


def test_with_all_damaged_it_starts_over_and_says_so(stopped: Run) -> None:
    for step in (3, 4):
        (stopped.checkpoint(step) / "manifest.json").unlink()
    outcome = stopped()
    assert "no checkpoint can be used: starting over" in outcome.err
    assert_finished(stopped, outcome)


def test_an_unfinished_one_is_not_used(stopped: Run) -> None:
    shutil.copytree(stopped.checkpoint(4), stopped.checkpoint(4).with_name(".checkpoint-5.partial"))
    outcome = stopped()
    assert "checkpoint-5 was not finished and is not used" in outcome.err
    assert "going on from step 4" in outcome.err
    assert_finished(stopped, outcome)


def test_no_resume_starts_over(stopped: Run) -> None:
    outcome = stopped("--no-resume")
    assert "starting over" in outcome.err
    assert "going on" not in outcome.err
    assert_finished(stopped, outcome)


def test_other_inputs_are_refused_and_nothing_is_lost(stopped: Run) -> None:
    stopped.data = stopped.made / "general"
    outcome = stopped()
    assert outcome.code == 3
    assert "begun with another data" in outcome.err
    assert "--no-resume starts over" in outcome.err
    assert stopped.checkpoints() == ["checkpoint-3", "checkpoint-4"]


def test_other_options_leave_it_alone(stopped: Run) -> None:
    left = stopped.partial
    outcome = stopped("--learning-rate", "1e-4")
    assert f"an unfinished run of other options lies in {left}; it is left alone" in outcome.err
    assert outcome.code == 0
    assert stopped.checkpoints() == ["checkpoint-3", "checkpoint-4"]


def test_overwriting_goes_on_too_and_the_old_run_stays_until_then(cli: Cli, made: Path, tmp_path: Path) -> None:
    undisturbed, run = Run(cli, made, tmp_path / "undisturbed"), Run(cli, made, tmp_path / "run")
    assert undisturbed().code == 0
    assert run("--seed", "1", "--max-steps", "3").code == 0
    old = contents(run.out)
    assert run("--overwrite", "--save-every", "1", stop_after=4).code == 75
    assert contents(run.out) == old
    refused = run()
    assert refused.code == 3
    assert "replace it with --overwrite" in refused.err
    assert contents(run.out) == old
    assert run.checkpoints() == ["checkpoint-3", "checkpoint-4"]
    outcome = run("--overwrite")
    assert "going on from step 4" in outcome.err
    assert_finished(run, outcome)
    weights = "model/model.safetensors"
    assert contents(run.out)[weights] == contents(undisturbed.out)[weights] != old[weights]


def contents(directory: Path) -> dict[str, bytes]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", ["optimizer.pt", "training_args.bin", "rng_state.pth"])
def test_a_pickle_in_a_checkpoint_is_refused_and_not_read(stopped: Run, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "it-ran"
    (stopped.checkpoint(4) / name).write_bytes(pickle.dumps(Marker(marker)))
    outcome = stopped()
    assert outcome.code == 3
    assert f"checkpoint-4 holds {name}: a pickle" in outcome.err
    assert not marker.exists()
    # It would have run, had anybody read it.
    pickle.loads((stopped.checkpoint(4) / name).read_bytes())
    assert marker.exists()


def test_tensors_swapped_for_a_pickle_are_not_read(stopped: Run, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    (pieces,) = stopped.checkpoint(4).glob("pieces-*")
    pieces.write_bytes(pickle.dumps(Marker(marker)))
    outcome = stopped()
    assert "checkpoint-4 is damaged and not used" in outcome.err
    assert_finished(stopped, outcome)
    assert not marker.exists()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside safetensors"])
def test_a_pickle_in_a_model_directory_is_not_read(cli: Cli, made: Path, tmp_path: Path, beside: bool) -> None:
    marker = tmp_path / "it-ran"
    run = Run(cli, tmp_path / "own", tmp_path / "run")
    shutil.copytree(made, tmp_path / "own")
    for name in ("pytorch_model.bin", "training_args.bin"):
        (tmp_path / "own/model" / name).write_bytes(pickle.dumps(Marker(marker)))
    if not beside:
        (tmp_path / "own/model/model.safetensors").unlink()
    outcome = run()
    assert outcome.code == (0 if beside else 2), outcome.err
    assert not marker.exists()
    if not beside:
        assert "Traceback" not in outcome.err
        assert not run.out.exists()


def test_a_full_disk_ends_the_run_and_the_rerun_goes_on(stopped: Run) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with mock.patch("pipelines.weights.pieces.write_tensors", full):
        outcome = stopped("--save-every", "1")
    assert outcome.code == 2
    assert outcome.err.count("error:") == 1
    assert "checkpoint-5 could not be written: No space left on device" in outcome.err
    assert stopped.checkpoints() == ["checkpoint-3", "checkpoint-4"]
    assert_finished(stopped, stopped())


def test_what_fails_before_the_first_checkpoint_leaves_nothing(cli: Cli, made: Path, tmp_path: Path) -> None:
    run = Run(cli, made, tmp_path / "run")
    outcome = run("--learning-rate", "1e30", "--set", "trainer.max_grad_norm=null")
    assert outcome.code != 0
    assert not list(tmp_path.glob(".run*"))
