"""Two commands for one place: the same waits for the other, another is refused, and no finished work is lost."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_registry.core.errors import ArtifactError, InputError
from data_registry.core.manifest import InputRecord, is_artifact, read_manifest, verify
from pipelines.core import artifact, claiming
from pipelines.core.artifact import ArtifactWriter, partial_path, write_artifact
from pipelines.core.claiming import is_held
from pipelines.core.config import CommandConfig
from pipelines.core.making import Made, Wanted, make, make_all
from tests.core.small_artifacts import CONFIG, Sample, fill

OTHER = Sample(steps=2)
RECORD = InputRecord(role="data", path="/data", kind="dataset", fingerprint="f" * 64)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "PATIENCE_S", 0.0)
    monkeypatch.setattr(claiming, "OTHERS_PATIENCE_S", 0.0)
    monkeypatch.setattr(claiming, "_POLL_S", 0.001)


def wanted(target: Path, config: CommandConfig = CONFIG, **options: bool) -> Wanted:
    return Wanted(target, "dataset", config, [RECORD], **options)


def never(writer: ArtifactWriter) -> None:
    raise AssertionError("the work was begun")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def another_makes(target: Path, config: Sample = CONFIG) -> Iterator[ArtifactWriter]:
    """What another process does: locks belong to open files, so that this process is as good."""
    with write_artifact(target, "dataset", config, [RECORD]) as writer:
        fill(writer)
        yield writer


def after_waiting(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object], times: int = 3) -> None:
    """Have something happen once a lock could not be had some times."""
    left, try_lock = [times], claiming._try_lock

    def counting(directory: Path) -> int | None:
        lock = try_lock(directory)
        left[0] -= lock is None
        if left[0] == 0:
            left[0] = -1
            then()
        return lock

    monkeypatch.setattr(claiming, "_try_lock", counting)


@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_the_same_command_waits_and_is_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, caplog: pytest.LogCaptureFixture
) -> None:
    """The other ends while this one waits for the lock of a directory, which then lies at the target."""
    monkeypatch.setattr(claiming, "PATIENCE_S", patience)
    target, other = tmp_path / "out", another_makes(tmp_path / "out")
    other.__enter__()
    after_waiting(monkeypatch, lambda: other.__exit__(None, None, None))
    with caplog.at_level("INFO"):
        made = make(wanted(target), never)
    assert made == Made(target, read_manifest(target), up_to_date=True)
    assert names(tmp_path) == ["out"]
    said = [record.getMessage() for record in caplog.records]
    expected = f"another process is making '{target}' at this moment; waiting for it"
    assert said == ([] if patience else [expected])


def test_when_the_other_fails_the_waiting_one_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = another_makes(tmp_path / "out")
    other.__enter__()

    def fail() -> None:
        assert not other.__exit__(ValueError, ValueError(), None)

    after_waiting(monkeypatch, fail)
    assert not make(wanted(tmp_path / "out"), fill).up_to_date
    assert names(tmp_path) == ["out"]


def test_a_lock_is_worth_nothing_on_a_directory_that_has_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening the directory and locking it, the other may finish, and a third may begin."""
    partial = partial_path(tmp_path / "out", CONFIG)
    lock = claiming._flock
    moves = [lambda: partial.rename(tmp_path / "moved"), lambda: None]

    def late(descriptor: int) -> bool:
        if os.path.samestat(os.fstat(descriptor), os.stat(partial)):
            moves.pop(0)()
        return lock(descriptor)

    monkeypatch.setattr(claiming, "_flock", late)
    monkeypatch.setattr(claiming, "PATIENCE_S", 60.0)
    monkeypatch.setattr(claiming, "directory_locked", lambda directory: open(os.devnull))  # noqa: SIM115
    make(wanted(tmp_path / "out"), fill)
    assert names(tmp_path) == ["moved", "out"]
    assert moves == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_command_for_the_place_is_refused_at_its_start(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "out"
    make(wanted(target), fill) if overwrite else None
    with another_makes_something_else(target, overwrite):
        before = names(tmp_path)
        with pytest.raises(InputError, match=r"another command is making .* at this moment, with other s"):
            make(wanted(target, overwrite=overwrite), never)
        assert names(tmp_path) == before
    assert read_manifest(target).config["steps"] == OTHER.steps
    assert names(tmp_path) == ["out"]


@contextmanager
def another_makes_something_else(target: Path, overwrite: bool) -> Iterator[None]:
    with write_artifact(target, "dataset", OTHER, [], overwrite=overwrite) as writer:
        fill(writer)
        yield


def test_through_a_link_it_is_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    with (
        another_makes_something_else(tmp_path / "disk", overwrite=False),
        pytest.raises(InputError, match="another command"),
    ):
        make(wanted(tmp_path / "out"), never)


def test_unfinished_work_of_another_command_that_has_ended_is_no_obstacle(tmp_path: Path) -> None:
    left = partial_path(tmp_path / "out", OTHER)
    left.mkdir()
    (left / "checkpoint").write_text("some")
    make(wanted(tmp_path / "out"), fill)
    assert names(tmp_path) == [left.name, "out"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc here")
def test_a_file_system_that_makes_no_directories_is_not_another_process() -> None:
    target = Path("/proc/ogpsa-out")
    with pytest.raises(InputError, match="cannot write to '/proc'") as caught:
        claiming.claim(target, partial_path(target, CONFIG))
    assert not isinstance(caught.value, claiming.Busy)


def test_many_that_begin_together_make_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "PATIENCE_S", 60.0)
    begun, outcomes = [], []

    def write(writer: ArtifactWriter) -> None:
        begun.append(writer.path)
        fill(writer)

    def run() -> None:
        outcomes.append(make(wanted(tmp_path / "out"), write).up_to_date)

    threads = [threading.Thread(target=run) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(begun), sorted(outcomes)) == (1, [False] + [True] * 11)
    assert names(tmp_path) == ["out"]


def test_of_many_different_that_begin_together_one_is_made(tmp_path: Path) -> None:
    begun, refused = [], []

    def write(writer: ArtifactWriter) -> None:
        begun.append(writer.path)
        fill(writer)

    def run(steps: int) -> None:
        try:
            make(wanted(tmp_path / "out", Sample(steps=steps)), write)
        except (InputError, ArtifactError) as error:
            refused.append(str(error))

    threads = [threading.Thread(target=run, args=(steps,)) for steps in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(begun), len(refused)) == (1, 11), refused
    assert all("another command is making" in text or "made with other settings" in text for text in refused)
    assert names(tmp_path) == ["out"]


# --- Finished work that cannot be put in its place ---------------------------------------------------------------


def blocked(target: Path) -> Callable[[ArtifactWriter], None]:
    """Work during which somebody puts something of theirs at the target."""

    def write(writer: ArtifactWriter) -> None:
        fill(writer)
        target.mkdir()
        (target / "theirs").write_text("x")

    return write


@pytest.mark.parametrize("keep_partial", [False, True])
def test_finished_work_that_cannot_be_placed_is_kept_and_named(tmp_path: Path, keep_partial: bool) -> None:
    target = tmp_path / "out $x"
    with pytest.raises(
        InputError, match="is finished, but could not be put in its place: directory not empty"
    ) as error:
        make(wanted(target, keep_partial=keep_partial), blocked(target))
    kept = partial_path(target, CONFIG)
    assert error.value.where == str(kept)
    assert error.value.fix == f"give it a name:  mv '{kept}' '{target}-1'"
    assert verify(kept, read_manifest(kept), hashes=True) == []
    assert names(target) == ["theirs"]
    assert not is_held(kept)


@pytest.mark.parametrize("keep_partial", [False, True])
def test_the_same_command_puts_finished_work_in_its_place(tmp_path: Path, keep_partial: bool) -> None:
    target = tmp_path / "out"
    with pytest.raises(InputError, match="is finished"):
        make(wanted(target, keep_partial=keep_partial), blocked(target))
    manifest = read_manifest(partial_path(target, CONFIG))
    (target / "theirs").unlink()
    made = make(wanted(target, keep_partial=keep_partial), never)
    assert made.manifest == read_manifest(target) == manifest
    assert names(tmp_path) == ["out"]


def test_of_several_the_others_are_put_in_their_places(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]

    def write(writers: Mapping[Path, ArtifactWriter]) -> None:
        for path, writer in writers.items():
            (blocked(path) if path.name == "b" else fill)(writer)

    with pytest.raises(InputError, match="b' is finished, but could not be put in its place"):
        make_all([wanted(path) for path in paths], write)
    for place in (paths[0], partial_path(paths[1], CONFIG), paths[2]):
        assert verify(place, read_manifest(place), hashes=True) == []
    (paths[1] / "theirs").unlink()
    assert [made.up_to_date for made in make_all([wanted(path) for path in paths], never_any)] == [True, True, True]


def test_a_signal_while_they_are_finished_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place = artifact.put_in_place

    def interrupted(finished: Path, target: Path, *, replace: bool) -> None:
        if target.name == "b":
            raise KeyboardInterrupt
        put_in_place(finished, target, replace=replace)

    monkeypatch.setattr(artifact, "put_in_place", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        make_all([wanted(tmp_path / name) for name in "abc"], lambda writers: [*map(fill, writers.values())] and None)
    assert caught.value is not None
    assert names(tmp_path) == ["a"]


def never_any(writers: Mapping[Path, ArtifactWriter]) -> None:
    raise AssertionError("the work was begun")


def test_finished_work_replaces_what_it_was_to_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    make(wanted(target, OTHER), fill)
    put_in_place = artifact.put_in_place

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(artifact, "put_in_place", refuse)
    monkeypatch.setattr(artifact.time, "monotonic", lambda: 0.0)
    with pytest.raises(InputError, match="could not be put in its place: operation not permitted"):
        make(wanted(target, overwrite=True), fill)
    assert read_manifest(target).config["steps"] == OTHER.steps
    _make_later(partial_path(target, CONFIG))
    monkeypatch.setattr(artifact, "put_in_place", put_in_place)
    assert not make(wanted(target, overwrite=True), never).up_to_date
    assert read_manifest(target).config["steps"] == CONFIG.steps
    assert names(tmp_path) == ["out"]


def _make_later(directory: Path) -> None:
    """An artifact as if it had been begun a day later."""
    manifest = read_manifest(directory)
    manifest.started = manifest.started.replace(manifest.started[:4], str(int(manifest.started[:4]) + 1), 1)
    (directory / "manifest.json").write_text(manifest.model_dump_json())


def test_what_was_replaced_does_not_come_back(tmp_path: Path) -> None:
    """Killed after both have changed places: the older one lies where the same command goes on."""
    target, partial = tmp_path / "out", partial_path(tmp_path / "out", CONFIG)
    make(wanted(target), fill)
    target.rename(partial)
    make(wanted(tmp_path / "newer"), fill)
    (tmp_path / "newer").rename(target)
    begun = []
    make(wanted(target, overwrite=True), lambda writer: (begun.append(1), fill(writer)))
    assert begun
    assert names(tmp_path) == ["out"]


def test_finished_work_from_other_inputs_is_not_taken(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(InputError, match="is finished"):
        make(wanted(target), blocked(target))
    (target / "theirs").unlink()
    other = RECORD.model_copy(update={"fingerprint": "0" * 64})
    begun = []
    made = make(Wanted(target, "dataset", CONFIG, [other]), lambda writer: (begun.append(1), fill(writer)))
    assert begun
    assert made.manifest.inputs == [other]
    assert is_artifact(target)
