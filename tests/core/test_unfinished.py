"""What is said of unfinished work to somebody who did not see it end."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_registry.core.errors import InputError, NumericsError, Preempted
from data_registry.core.stopping import StopRequested
from pipelines.core import unfinished
from pipelines.core.artifact import partial_path, write_artifact
from pipelines.core.config import CommandConfig, option


class Sample(CommandConfig):
    steps: int = option(1, "Steps.")


def work(target: Path, error: BaseException | None, *, keep: bool = True) -> None:
    """Work that saves something, and then ends with this error."""
    with write_artifact(target, "dataset", Sample(), [], keep_partial=keep) as writer:
        (writer.path / "saved").write_text("1")
        if error is not None:
            raise error


def ended_with(target: Path, error: BaseException, *, keep: bool = True) -> None:
    with pytest.raises(type(error)):
        work(target, error, keep=keep)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "run [1]*"


@pytest.mark.parametrize(
    ("error", "said"),
    [(Preempted("stopped (SIGTERM) at step 3: saved"), "at step 3: saved"), (StopRequested("SIGINT"), "same command")],
)
def test_work_that_was_asked_to_stop_says_what_it_said_then(target: Path, error: BaseException, said: str) -> None:
    ended_with(target, error)
    with pytest.raises(Preempted, match=said) as caught:
        unfinished.check(target)
    assert str(caught.value).startswith(f"'{target}' is not finished: stopped (")
    assert caught.value.exit_code == 75


def test_work_that_failed_since_is_no_longer_called_stopped(target: Path) -> None:
    ended_with(target, Preempted("stopped"))
    ended_with(target, NumericsError("the loss is nan"))
    with pytest.raises(InputError, match="is not finished: a command is at work on it, or has failed"):
        unfinished.check(target)


def test_while_it_goes_on_it_is_not_stopped(target: Path) -> None:
    ended_with(target, Preempted("stopped"))
    with write_artifact(target, "dataset", Sample(), [], keep_partial=True), pytest.raises(InputError):
        unfinished.check(target)


def test_finished_or_never_begun_nothing_is_said(target: Path) -> None:
    unfinished.check(target)
    ended_with(target, Preempted("stopped"))
    work(target, None)
    unfinished.check(target)
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "saved"]


def test_work_of_which_nothing_remains_leaves_no_mark(target: Path) -> None:
    ended_with(target, Preempted("stopped"), keep=False)
    assert not partial_path(target, Sample()).exists()
    unfinished.check(target)
