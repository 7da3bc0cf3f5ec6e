"""Every file lies in a room of the table, and imports go where the table lets them."""

from __future__ import annotations

import importlib
import sys
from collections import defaultdict

import pytest

from pipelines.configs.commands import COMMANDS, Command
from tests.structure.code import PACKAGES, circle, project_imports, read_modules
from tests.structure.table import EVERYTHING, read_table, room_name, sentence

HEAVY = {
    "accelerate", "datasets", "deepspeed", "lm_eval", "matplotlib", "numpy", "peft", "pyarrow", "safetensors", "scipy",
    "tokenizers", "torch", "transformers", "trl", "vllm",
}  # fmt: skip

MODULES = read_modules()
ROOMS = read_table()


def allowed(room: str) -> set[str]:
    """The rooms that a row lets its room import."""
    named = ROOMS[room].allowed
    if EVERYTHING in named:
        package = room.partition("/")[0]
        return {room, *(set(named) - {EVERYTHING}), *(other for other in ROOMS if other.partition("/")[0] != package)}
    return {room, *named}


def room_of(name: str) -> str:
    room = room_name(MODULES[name], ROOMS)
    assert room is not None, f"{MODULES[name].file} lies in no room of the table: add a row for its folder"
    return room


def test_the_code_was_found() -> None:
    assert len(MODULES) > 200
    assert {name.partition(".")[0] for name in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("name", MODULES)
def test_every_file_lies_in_a_room(name: str) -> None:
    assert room_of(name)


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_there_and_says_what_belongs_in_it(room: str) -> None:
    assert any(room in (module.folder, module.file) for module in MODULES.values()), "a row without files: take it out"
    assert sentence(room, MODULES).endswith(".")


@pytest.mark.parametrize("room", ROOMS)
def test_the_table_goes_down(room: str) -> None:
    unknown = set(ROOMS[room].allowed) - {EVERYTHING} - ROOMS.keys()
    assert not unknown
    assert not [other for other in allowed(room) if ROOMS[other].height < ROOMS[room].height]


@pytest.mark.parametrize("name", MODULES)
def test_imports_are_those_of_the_table(name: str) -> None:
    room = room_of(name)
    forbidden = [
        f"{MODULES[name].file}:{imported.line} imports {imported.module}, which lies in {room_of(below.name)}"
        for below, imported in project_imports(MODULES[name], MODULES)
        if room_of(below.name) not in allowed(room)
    ]
    assert not forbidden, f"the row of {room} in tests/structure/table.yaml does not name it"


@pytest.mark.parametrize("room", ROOMS)
def test_no_row_allows_more_than_is_used(room: str) -> None:
    used = {room_of(below.name) for name in MODULES if room_of(name) == room
            for below, _ in project_imports(MODULES[name], MODULES)}  # fmt: skip
    unused = set(ROOMS[room].allowed) - used - {EVERYTHING}
    assert not unused, "take these out of its row"


def test_files_do_not_import_each_other_in_a_circle() -> None:
    arrows = {name: {below.name for below, _ in project_imports(module, MODULES)} for name, module in MODULES.items()}
    assert not circle(arrows)


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    arrows = defaultdict(set)
    for name, module in MODULES.items():
        for below, _ in project_imports(module, MODULES):
            arrows[room_of(name)].add(room_of(below.name))
    assert not circle({room: others - {room} for room, others in arrows.items()})
    # What the table allows has none either, whether or not it is used.
    assert not circle({room: allowed(room) - {room} for room in ROOMS})


@pytest.mark.parametrize(
    "name", [name for name in MODULES if (room := room_name(MODULES[name], ROOMS)) and ROOMS[room].is_light]
)
def test_heavy_libraries_are_imported_where_they_are_used(name: str) -> None:
    early = [
        f"{MODULES[name].file}:{imported.line} imports {imported.module} when it is imported itself"
        for imported in MODULES[name].imports()
        if imported.early and imported.module.partition(".")[0] in HEAVY
    ]
    assert not early


@pytest.mark.parametrize(
    "name", [name for name in MODULES if (room := room_name(MODULES[name], ROOMS)) and ROOMS[room].libraries]
)
def test_some_rooms_know_some_libraries_alone(name: str) -> None:
    libraries = ROOMS[room_of(name)].libraries
    assert libraries is not None
    foreign = [
        f"{MODULES[name].file}:{imported.line} imports {imported.module}"
        for imported in MODULES[name].imports()
        if imported.module.partition(".")[0] not in {*libraries, *PACKAGES, *sys.stdlib_module_names}
    ]
    assert not foreign


def test_the_shards_alone_know_the_zero_stages() -> None:
    knowing = [
        module.file
        for module in MODULES.values()
        if any(word in module.text for word in ("deepspeed.runtime", "_hp_mapping"))
    ]
    assert knowing
    assert not [file for file in knowing if not file.startswith("pipelines/engine/shards/")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_options_and_a_screen(command: Command) -> None:
    assert command.config_class().__doc__
    assert command.config_class().examples
    assert callable(importlib.import_module(f"ogpsa_cli.commands.{command.module}").execute)


def test_every_file_of_the_commands_is_a_command_of_the_table() -> None:
    for folder in ("ogpsa_cli.commands.", "pipelines.commands."):
        assert {name for name in MODULES if name.startswith(folder)} == {folder + each.module for each in COMMANDS}
