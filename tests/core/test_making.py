"""The life of an artifact as commands see it: found or made, by one process and by two that work together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from data_registry.core.errors import ArtifactError, InputError
from data_registry.core.manifest import InputRecord, read_manifest, verify
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import barrier, gather, on_main
from pipelines.core.making import Made, Wanted, find, make, make_all
from tests.core.making_worker import Sample, fill, names
from tests.distributed.ranks import run_ranks

RECORD = InputRecord(role="data", path="/data", kind="dataset", fingerprint="f" * 64)


def wanted(path: Path, steps: int = 1, *, overwrite: bool = False, keep_partial: bool = False) -> Wanted:
    return Wanted(path, "dataset", Sample(steps=steps), [RECORD], overwrite=overwrite, keep_partial=keep_partial)


def never(writer: ArtifactWriter) -> None:
    raise AssertionError("what is finished is not written again")


# --- What a command reads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["itself", "a file in it", "a link to it"])
def test_an_artifact_is_not_replaced_by_what_is_made_of_it(tmp_path: Path, where: str) -> None:
    out = make(wanted(tmp_path / "out"), fill).path
    (tmp_path / "link").symlink_to("out")
    path = {"itself": out, "a file in it": out / "rows.bin", "a link to it": tmp_path / "link"}[where]
    before = read_manifest(out)
    own = RECORD.model_copy(update={"role": "reference", "path": str(path)})
    again = Wanted(out, "dataset", Sample(steps=2), [RECORD, own], overwrite=True)
    for refused in (find, lambda other: make(other, never)):
        with pytest.raises(InputError, match="is what this command reads") as caught:
            refused(again)
        assert caught.value.where == f"reference: {path}"
    assert read_manifest(out) == before
    assert verify(out, before, hashes=True) == []


def test_names_that_only_look_like_the_place_are_no_inputs_in_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(wanted(tmp_path / "out"), fill)
    beside = RECORD.model_copy(update={"path": str(tmp_path / "out-2")})
    of_the_hub = RECORD.model_copy(update={"path": "out"})
    made = make(Wanted(tmp_path / "out", "dataset", Sample(steps=2), [beside, of_the_hub], overwrite=True), fill)
    assert made.manifest.config["steps"] == 2


# --- One process -------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_made_and_then_found(tmp_path: Path) -> None:
    target = wanted(tmp_path / "out")
    assert find(target) is None
    made = make(target, fill)
    assert made == Made(tmp_path / "out", read_manifest(tmp_path / "out"), up_to_date=False)
    assert verify(made.path, made.manifest, hashes=True) == []
    assert made.manifest.summary == {"by": 0}
    assert find(target) == make(target, never) == Made(made.path, made.manifest, up_to_date=True)
    assert names(tmp_path) == ["out"]


def test_inputs_may_be_added_while_writing(tmp_path: Path) -> None:
    more = RECORD.model_copy(update={"role": "more"})

    def write(writer: ArtifactWriter) -> None:
        fill(writer)
        writer.inputs.append(more)

    assert make(wanted(tmp_path / "out"), write).manifest.inputs == [RECORD, more]


def test_another_configuration_is_refused_and_replaced_when_asked(tmp_path: Path) -> None:
    make(wanted(tmp_path / "out"), fill)
    for refused in (find, lambda other: make(other, never)):
        with pytest.raises(ArtifactError, match="made with other settings: steps"):
            refused(wanted(tmp_path / "out", steps=2))
    made = make(wanted(tmp_path / "out", steps=2, overwrite=True), fill)
    assert (made.up_to_date, made.manifest.config["steps"]) == (False, 2)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_nothing_unless_it_is_to_be_kept(tmp_path: Path, error: BaseException) -> None:
    def write(writer: ArtifactWriter) -> None:
        fill(writer)
        raise error

    with pytest.raises(type(error)):
        make(wanted(tmp_path / "out"), write)
    assert names(tmp_path) == []
    with pytest.raises(type(error)):
        make(wanted(tmp_path / "out", keep_partial=True), write)
    (left,) = names(tmp_path)
    assert left.startswith(".out.partial-")


def test_of_several_only_those_that_are_missing_are_written(tmp_path: Path) -> None:
    make(wanted(tmp_path / "b", 2), fill)
    given: list[Path] = []

    def write(writers: Mapping[Path, ArtifactWriter]) -> None:
        given.extend(writers)
        for writer in writers.values():
            fill(writer)

    all_of_them = [wanted(tmp_path / name, steps) for steps, name in enumerate("abc", start=1)]
    made = make_all(all_of_them, write)
    assert given == [tmp_path / "a", tmp_path / "c"]
    assert [(each.path.name, each.up_to_date) for each in made] == [("a", False), ("b", True), ("c", False)]
    assert [each.manifest.config["steps"] for each in made] == [1, 2, 3]
    assert make_all(all_of_them, write) == [Made(each.path, each.manifest, up_to_date=True) for each in made]
    assert len(given) == 2


def test_an_error_while_several_are_written_leaves_none(tmp_path: Path) -> None:
    def write(writers: Mapping[Path, ArtifactWriter]) -> None:
        fill(next(iter(writers.values())))
        raise ValueError

    with pytest.raises(ValueError):
        make_all([wanted(tmp_path / "a"), wanted(tmp_path / "b")], write)
    assert names(tmp_path) == []


def test_where_one_of_several_cannot_be_written_none_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write to"):
        make_all([wanted(tmp_path / "a"), wanted(tmp_path / "file" / "b")], lambda writers: None)
    assert names(tmp_path) == ["file"]


def test_rank_zero_of_a_command_for_one_process_works_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun the others have left already, and nobody has joined a group."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert not make(wanted(tmp_path / "out"), fill).up_to_date
    assert gather(1) == [1]
    monkeypatch.setenv("RANK", "1")
    for together in (barrier, lambda: on_main(lambda: None), lambda: gather(1)):
        with pytest.raises(AssertionError, match="join its job's group"):
            together()


# --- Two processes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return run_ranks("tests.core.making_worker", tmp_path_factory.mktemp("ranks"), timeout_s=120)


def test_both_ranks_write_and_learn_what_was_made(findings: dict[str, object]) -> None:
    assert findings["made"] == [[False, {"by": 0}, ["share-0", "share-1"]]] * 2


def test_what_is_finished_is_found_on_all_ranks(findings: dict[str, object]) -> None:
    assert findings["found"] == [[True, {"by": 0}, ["share-0", "share-1"]]] * 2


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("found something else", "ArtifactError: made with other settings: steps"),
        ("opening", "InputError: cannot write to"),
        ("placing", "InputError: no space left on device"),
    ],
)
def test_an_error_on_rank_zero_reaches_all(findings: dict[str, object], moment: str, said: str) -> None:
    kind, _, words = said.partition(": ")
    told = findings[moment]
    assert isinstance(told, list)
    assert len(told) == 2
    assert all(text.startswith(f"{kind}: ") and words in text for text in told)


def test_a_failure_of_the_second_rank_while_writing_leaves_nothing(findings: dict[str, object]) -> None:
    assert findings["failure of rank 1"] == {"raised": True, "left": []}
