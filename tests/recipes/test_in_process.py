"""Steps in one process: what cannot be run so is refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_registry.core.errors import ConfigError, InputError
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.artifact import command_line
from pipelines.recipes.chain import Step
from pipelines.recipes.in_process import run_steps


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Step("made", "prepare-data", "", PrepareDataConfig(source="testbed-reason", out=tmp_path / "made"))
    wide = Step("wide", "train-sft", "", TrainSftConfig(model="m", data="d", out=tmp_path / "wide", num_procs=2))
    with pytest.raises(ConfigError, match="wide: num-procs asks for several processes"):
        run_steps([made, wide])
    assert not made.out.exists()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="run in one process"):
        run_steps([made])


def test_a_failure_leaves_what_is_done_and_threads_and_command_line_as_they_were(tmp_path: Path) -> None:
    made = Step("made", "prepare-data", "", PrepareDataConfig(source="testbed-reason", out=tmp_path / "made"))
    bad = Step("bad", "prepare-data", "", PrepareDataConfig(source=str(tmp_path / "none.jsonl"), out=tmp_path / "bad"))
    threads, typed = torch.get_num_threads(), command_line()
    with pytest.raises(InputError):
        run_steps([made, bad], threads=1)
    assert (torch.get_num_threads(), command_line()) == (threads, typed)
    assert run_steps([made]) == [True]
