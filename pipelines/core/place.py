"""Where an artifact will lie: links followed, and before the work a trial whether it can be put there."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_registry.core.errors import ArtifactError, InputError
from data_registry.core.manifest import InputRecord, is_artifact
from data_registry.core.visible import is_text
from pipelines.core.aside import all_aside, aside_of
from pipelines.core.placing import exchange


def place_of(target: Path) -> Path:
    """The directory that ``target`` means: absolute, with links followed.

    What a link leads to is made or replaced, and the link stays. Work then lies aside of the place itself, on its file
    system.

    Raises:
        InputError: the name cannot be that of a directory.
    """
    try:
        return Path(os.path.realpath(target))
    except ValueError as error:
        raise InputError(f"{str(target)!r} cannot be the name of a directory: {error}") from error
    except FileNotFoundError as error:
        raise InputError(
            f"'{target}' cannot be found: the working directory was removed", fix="change to a directory that exists"
        ) from error


def is_free(place: Path) -> bool:
    """Whether nothing lies at a place, or an empty directory."""
    if not os.path.lexists(place):
        return True
    return place.is_dir() and not place.is_symlink() and not any(place.iterdir())


def check_place(target: Path) -> None:
    """Check, before the work, whether a finished directory could be put where ``target`` leads.

    A directory is renamed in the place in the way in which the finished one will be; nothing that lies there changes.

    Args:
        target: where the artifact is to lie, as the user named it. The directory above it must exist. An artifact that
            lies there may be replaced as far as this function is concerned.

    Raises:
        ArtifactError: something that is no artifact lies there.
        InputError: nothing can be put there: it is a mount point, the working directory, or may not be renamed.
    """
    place = place_of(target)
    if not is_text(place):
        raise InputError(
            "the place of an artifact must have a name in UTF-8: some libraries take no other",
            where=str(target),
            fix="choose another --out, or another working directory",
        )
    if place.is_symlink():
        raise InputError(f"'{target}' is a link that leads to itself", fix="remove the link, or choose another --out")
    if not is_free(place) and not is_artifact(place):
        raise ArtifactError(
            f"'{target}' exists and is not an artifact of ogpsa; it will not be touched",
            fix="choose another --out",
        )
    if place.exists() and _stands_in(place):
        raise InputError(
            f"'{target}' is the working directory, or above it: it would be removed from under this shell when the "
            "finished directory is put in its place",
            fix=f"name a directory in it, such as --out run, or go up first:  cd {place.parent}",
        )
    with _trial_directory(place) as trial:
        try:
            _try_rename(trial, place)
        except OSError as error:
            raise _cannot_rename(target, place, error) from error


def check_link(target: Path) -> None:
    """Refuse a link to a place whose parent directory does not exist: it may be on a disk that is not mounted.

    Raises:
        InputError: the link leads nowhere.
    """
    place = place_of(target)
    if target.is_symlink() and not place.parent.is_dir():
        raise InputError(
            f"'{target}' is a link to '{place}', and there is no directory '{place.parent}'",
            fix="make that directory (is its disk mounted?), or choose another --out",
        )


def refuse_own_inputs(target: Path, inputs: Sequence[InputRecord]) -> None:
    """Refuse to replace what a command reads: with the old artifact its own input would go.

    Args:
        target: where the artifact is to lie, and where another one lies now.
        inputs: records of the inputs. Those that lie nowhere (of the hub, of the program) have no absolute path.

    Raises:
        InputError: one of them lies at the target, or in it.
    """
    place = place_of(target)
    if _stands_in(place):
        return  # that is refused for another reason
    for record in inputs:
        if not os.path.isabs(record.path):
            continue
        path = Path(os.path.realpath(record.path))
        if path == place or place in path.parents:
            raise InputError(
                f"'{target}' is what this command reads, and would be gone when the new artifact takes its place",
                where=f"{record.role}: {record.path}",
                fix="choose another --out",
            )


def _stands_in(place: Path) -> bool:
    try:
        here = Path(os.getcwd())
    except OSError:
        return False
    return place == here or place in here.parents


@contextlib.contextmanager
def _trial_directory(place: Path) -> Iterator[Path]:
    """An empty directory aside of a place; it goes with those that killed processes have left."""
    trial = aside_of(place, "trial", str(os.getpid()))
    trial.mkdir(exist_ok=True)
    try:
        yield trial
    finally:
        for path in all_aside(place, "trial"):
            with contextlib.suppress(OSError):
                path.rmdir()


def _moved(trial: Path) -> Path:
    return trial.with_name(trial.name + "m")


def _try_rename(trial: Path, place: Path) -> None:
    if not place.exists():
        os.rename(trial, _moved(trial))
    elif is_free(place):
        # Twice, so that the user's own empty directory is there again; else ours, as empty, takes its place.
        if not (exchange(trial, place) and exchange(trial, place)):
            os.rename(trial, place)
    else:
        try:
            os.rename(trial, place)
        except OSError as error:
            # The system asks whether the place may be renamed at all before it sees that there are files in it.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _cannot_rename(target: Path, place: Path, error: OSError) -> InputError:
    if error.errno == errno.EBUSY:
        return InputError(
            f"'{target}' is a mount point: a finished directory cannot be put in its place",
            where=str(place),
            fix=f"name a directory in it:  --out {target / 'run'}",
        )
    return InputError(
        f"no directory can be put in the place of '{target}': {(error.strerror or str(error)).lower()}",
        where=str(place),
        fix="choose another --out",
    )
