"""Every kind of place that ``--out`` can name: it works, links followed, or it is refused before any work is done."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_registry.core.errors import InputError, OgpsaError
from data_registry.core.manifest import is_artifact, read_manifest, verify
from pipelines.core.artifact import ArtifactWriter, partial_path
from pipelines.core.aside import all_aside, aside_of
from pipelines.core.making import Wanted, make
from pipelines.core.place import place_of
from pipelines.core.unfinished import check
from tests.core.small_artifacts import CONFIG, Sample, fill


def wanted(target: Path, config: Sample = CONFIG, *, overwrite: bool = False) -> Wanted:
    return Wanted(target, "dataset", config, overwrite=overwrite)


def tree(folder: Path) -> list[str]:
    """Everything below a folder, with where links lead."""
    paths = sorted(folder.rglob("*"))
    return [f"{path.relative_to(folder)} {os.readlink(path) if path.is_symlink() else path.is_dir()}" for path in paths]


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name != ".hidden"]


# --- Places that work --------------------------------------------------------------------------------------------


def plain(folder: Path) -> tuple[Path, Path]:
    return folder / "out", folder / "out"


def below_missing_folders(folder: Path) -> tuple[Path, Path]:
    return folder / "a" / "b" / "out", folder / "a" / "b" / "out"


def link_to_an_empty_directory(folder: Path) -> tuple[Path, Path]:
    (folder / "disk").mkdir()
    (folder / "out").symlink_to("disk")
    return folder / "out", folder / "disk"


def link_to_a_link(folder: Path) -> tuple[Path, Path]:
    (folder / "disk" / "me").mkdir(parents=True)
    (folder / "second").symlink_to(folder / "disk" / "me")
    (folder / "out").symlink_to("second")
    return folder / "out", folder / "disk" / "me"


def link_to_what_is_not_there_yet(folder: Path) -> tuple[Path, Path]:
    (folder / "disk").mkdir()
    (folder / "out").symlink_to("disk/run")
    return folder / "out", folder / "disk" / "run"


def link_above(folder: Path) -> tuple[Path, Path]:
    (folder / "disk").mkdir()
    (folder / "runs").symlink_to("disk")
    return folder / "runs" / "out", folder / "disk" / "out"


def dots_behind_a_link(folder: Path) -> tuple[Path, Path]:
    # The system goes up from where the link leads to, not from where it lies.
    (folder / "disk" / "deep").mkdir(parents=True)
    (folder / "runs").symlink_to("disk/deep")
    return folder / "runs" / ".." / "out", folder / "disk" / "out"


GOOD = [plain, below_missing_folders, link_to_an_empty_directory, link_to_a_link, link_to_what_is_not_there_yet,
        link_above, dots_behind_a_link]  # fmt: skip


@pytest.mark.parametrize("place", GOOD)
def test_links_are_followed_and_stay(tmp_path: Path, place: Callable[[Path], tuple[Path, Path]]) -> None:
    target, real = place(tmp_path)
    links = {path: os.readlink(path) for path in tmp_path.rglob("*") if path.is_symlink()}
    for config, overwrite in ((CONFIG, False), (Sample(steps=2), True)):
        made = make(wanted(target, config, overwrite=overwrite), fill)
        assert (made.up_to_date, made.path) == (False, target)
        assert not real.is_symlink()
        assert verify(real, read_manifest(real), hashes=True) == []
        assert make(wanted(target, config), fill).up_to_date
    assert {path: os.readlink(path) for path in tmp_path.rglob("*") if path.is_symlink()} == links
    assert hidden(tmp_path) == []


def test_what_a_link_leads_to_is_replaced_whole(tmp_path: Path) -> None:
    make(wanted(tmp_path / "big" / "real"), fill)
    (tmp_path / "out").symlink_to("big/real")
    make(wanted(tmp_path / "out", Sample(steps=2), overwrite=True), fill)
    manifest = read_manifest(tmp_path / "big" / "real")
    assert manifest.config["steps"] == 2
    assert verify(tmp_path / "big" / "real", manifest, hashes=True) == []
    assert [line for line in tree(tmp_path) if line.count("/") < 2] == ["big True", "big/real True", "out big/real"]
    assert hidden(tmp_path) == []


NAMES = ["two\nlines", "$HOME", "a b", "[1]*?", "-o", "it's \"quoted\"", ".hidden", "x" * 230, "x" * 231, "y" * 255,
         "ü" * 127, "\x1b[31mred", "~", "a\tb", "out.partial-0123abcd", "#", "%s", "\\", "ключ"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_file_systems_allow_work(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    make(wanted(target), fill)
    make(wanted(target, Sample(steps=2), overwrite=True), fill)
    assert verify(target, read_manifest(target), hashes=True) == []
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_names_of_any_characters_work(tmp_path: Path) -> None:
    draw = random.Random(0)
    characters = [chr(number) for number in (*range(1, 47), *range(48, 0xD800), *range(0xE000, 0x110000))]
    for _ in range(12):
        name = "".join(draw.choices(characters, k=draw.randint(1, 60)))
        if name in (".", ".."):
            continue
        make(wanted(tmp_path / name), fill)
        assert os.listdir(tmp_path) == [name]
        assert make(wanted(tmp_path / name), fill).up_to_date
        for path in (tmp_path / name).rglob("*"):
            path.unlink() if path.is_file() else None
        (tmp_path / name / "deep").rmdir()
        (tmp_path / name).rmdir()


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="UTF-8"):
        make(wanted(tmp_path / os.fsdecode(b"run-\xff")), fill)
    assert os.listdir(tmp_path) == []


def test_two_long_names_do_not_share_what_lies_aside(tmp_path: Path) -> None:
    one, other = tmp_path / ("x" * 250 + "1"), tmp_path / ("x" * 250 + "2")
    assert partial_path(one, CONFIG) != partial_path(other, CONFIG)
    assert len(partial_path(one, CONFIG).name) <= 255


def test_what_lies_aside_is_found_by_the_name_of_the_place(tmp_path: Path) -> None:
    place = tmp_path / "run [1]*"
    aside = aside_of(place, "partial", "0123abcd")
    aside.mkdir()
    (tmp_path / ".run 1x.partial-0123abcd").mkdir()
    aside_of(place, "replaced", "7").symlink_to(tmp_path)
    assert all_aside(place, "partial") == [aside]
    assert all_aside(place, "replaced") == []


def test_trials_of_killed_processes_are_removed(tmp_path: Path) -> None:
    for ending in ("1", "2m"):
        aside_of(tmp_path / "out", "trial", ending).mkdir()
    make(wanted(tmp_path / "out"), fill)
    assert os.listdir(tmp_path) == ["out"]


def test_unfinished_work_behind_a_link_or_in_an_empty_directory_is_spoken_of(tmp_path: Path) -> None:
    target, real = link_to_an_empty_directory(tmp_path)
    aside_of(real, "partial", "0123abcd").mkdir()
    for named in (target, real):
        with pytest.raises(OgpsaError, match="is not finished"):
            check(named)


# --- Places that are refused before the work ---------------------------------------------------------------------


def never(writer: ArtifactWriter) -> None:
    raise AssertionError("the work was begun")


def link_in_a_circle(folder: Path) -> tuple[Path, str]:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    return folder / "one", "is a link that leads to itself"


def link_to_a_missing_folder(folder: Path) -> tuple[Path, str]:
    (folder / "out").symlink_to("scratch/me/run")
    return folder / "out", "there is no directory"


def link_to_a_file(folder: Path) -> tuple[Path, str]:
    (folder / "notes").write_text("x")
    (folder / "out").symlink_to("notes")
    return folder / "out", "will not be touched"


def link_to_a_directory_with_files(folder: Path) -> tuple[Path, str]:
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("x")
    (folder / "out").symlink_to("thesis")
    return folder / "out", "will not be touched"


def working_directory(folder: Path) -> tuple[Path, str]:
    return Path("."), "is the working directory, or above it"


def working_directory_by_its_name(folder: Path) -> tuple[Path, str]:
    return folder / "here", "is the working directory, or above it"


def working_directory_behind_a_link(folder: Path) -> tuple[Path, str]:
    (folder / "out").symlink_to("here")
    return folder / "out", "is the working directory, or above it"


def root(folder: Path) -> tuple[Path, str]:
    return Path("/"), "will not be touched"


def too_long(folder: Path) -> tuple[Path, str]:
    return folder / ("x" * 256), "name too long"


def no_name(folder: Path) -> tuple[Path, str]:
    return folder / "a\0b", "cannot be the name of a directory"


BAD = [link_in_a_circle, link_to_a_missing_folder, link_to_a_file, link_to_a_directory_with_files, working_directory,
       working_directory_by_its_name, working_directory_behind_a_link, root, too_long, no_name]  # fmt: skip


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", BAD)
def test_what_cannot_work_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Callable[[Path], tuple[Path, str]], overwrite: bool
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    target, says = place(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(OgpsaError, match="(?i)" + says):
        make(wanted(target, overwrite=overwrite), never)
    assert tree(tmp_path) == before


def test_the_working_directory_that_holds_the_result_is_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(wanted(tmp_path / "out"), fill)
    monkeypatch.chdir(tmp_path / "out" / "deep")
    assert make(wanted(Path("..")), never).up_to_date
    with pytest.raises(OgpsaError, match="is the working directory, or above it"):
        make(wanted(Path(".."), overwrite=True), never)
    assert verify(tmp_path / "out", read_manifest(tmp_path / "out"), hashes=True) == []


def test_a_removed_working_directory_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OgpsaError, match="the working directory was removed"):
        make(wanted(Path("out")), never)
    make(wanted(tmp_path / "out"), fill)


# --- Mounted places ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["file system", "directory", "read-only"])
def mounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    place, source = tmp_path / "mounted", tmp_path / "source"
    place.mkdir()
    source.mkdir()
    command = ["mount", "--bind", str(source)] if request.param == "directory" else ["mount", "-t", "tmpfs", "none"]
    if subprocess.run([*command, str(place)], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs privileges")
    if request.param == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_mount_point_is_refused_before_the_work_and_a_directory_in_it_works(
    tmp_path: Path, mounted: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "out").symlink_to("mounted")
    before = tree(tmp_path)
    for target in (mounted, tmp_path / "out"):
        with pytest.raises(OgpsaError, match="is a mount point") as caught:
            make(wanted(target), never)
        assert f"--out {target}/run" in str(caught.value)
    assert tree(tmp_path) == before
    inside = mounted / "run"
    if "read-only" in request.node.name:
        with pytest.raises(OgpsaError, match=r"(?i)cannot write to .*read-only"):
            make(wanted(inside), never)
        return
    make(wanted(inside), fill)
    make(wanted(tmp_path / "out" / "run", Sample(steps=2), overwrite=True), fill)
    assert read_manifest(inside).config["steps"] == 2
    assert hidden(tmp_path) == []


def test_an_artifact_on_a_mount_point_is_not_replaced(tmp_path: Path, mounted: Path) -> None:
    """As after an artifact was copied onto a disk of its own."""
    if not os.access(mounted, os.W_OK):
        pytest.skip("nothing can be copied onto it")
    make(wanted(tmp_path / "made"), fill)
    subprocess.run(["cp", "-r", f"{tmp_path}/made/.", str(mounted)], check=True)
    with pytest.raises(OgpsaError, match="is a mount point"):
        make(wanted(mounted, Sample(steps=2), overwrite=True), never)
    assert is_artifact(mounted)
    assert verify(mounted, read_manifest(mounted), hashes=True) == []
    assert place_of(mounted) == mounted
