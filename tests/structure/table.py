"""The table of rooms: which there are, from the top to the bottom, and what each may import (``table.yaml``)."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.structure.code import Module

FILE = Path(__file__).with_suffix(".yaml")
EVERYTHING = "everything"


@dataclass(frozen=True)
class Room:
    """A row of the table.

    Attributes:
        name: a folder from the root, or a file that is a room of its own.
        layer: what its layer is called.
        height: of the layer, from the top, which is 0.
        allowed: rooms that it may import beside itself.
        is_light: whether heavy libraries are left for inside functions.
        libraries: the only packages of others that it may import; None where it may import any.
    """

    name: str
    layer: str
    height: int
    allowed: tuple[str, ...]
    is_light: bool
    libraries: tuple[str, ...] | None


def read_table(file: Path = FILE) -> dict[str, Room]:
    """All rooms by name, in the order of the table."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {
        name: Room(
            name,
            layer["layer"],
            height,
            tuple(allowed),
            any(f"{name}/".startswith(f"{light}/") for light in document["light"]),
            tuple(document["libraries"][name]) if name in document["libraries"] else None,
        )
        for height, layer in enumerate(document["layers"])
        for name, allowed in layer["rooms"].items()
    }


def room_name(module: Module, rooms: Mapping[str, Room]) -> str | None:
    """The room that a file lies in: its own, or its folder's; None where the table has neither."""
    return next((name for name in (module.file, module.folder) if name in rooms), None)


def sentence(room: str, modules: Mapping[str, Module]) -> str:
    """What belongs in a room: the first paragraph of the docstring of its ``__init__``, or of the file."""
    files = (room, f"{room}/__init__.py")
    module = next(module for module in modules.values() if module.file in files)
    return " ".join((ast.get_docstring(module.tree) or "").partition("\n\n")[0].split())
