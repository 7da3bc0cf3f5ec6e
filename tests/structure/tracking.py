"""Follows a value through the files of the project while commands run: which files are called with it, in what order.

Works on any commit, for it knows nothing of the project but where its files lie. :class:`Track` says what is counted.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import threading
from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

# How far values are looked into: levels of containers and records, and members of each.
_DEPTH, _MEMBERS = 6, 256
_MAX_ROWS = 64
_PASSING = ("<module>", "<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A call into a file with the value.

    Attributes:
        file: that was entered.
        function: that was called.
        argument: that holds the value.
        caller: the file of the project that called, also through libraries; None at the start.
        itself: whether the argument is the value or a plain container or data set of it; otherwise it lies inside a
            record or an object, which the function may have been given for something else.
    """

    file: str
    function: str
    argument: str
    caller: str | None
    itself: bool


class Track:
    """Records every call of a project function one of whose arguments holds the value.

    An argument holds the value if it is the value, if it is a container, a data set or a record (dataclass, pydantic
    model) that holds it at any depth, or if it is another object one of whose attributes does: one level deep, for
    an object that does work knows much that it does not pass on. The methods of a record are not entered with what it
    holds itself: to ask it for that is no step of the way. What a call returns is not looked at either, nor are the
    resumptions of a generator.

    Args:
        root: the directory that the packages lie in.
        packages: the folders under it that are the project.
        is_value: whether a text, number, list of numbers, array or tensor is the tracked value.
        is_end: whether a call ends the trip; asked of all calls, also in libraries.
        last_file: name of a file; when it is opened for writing, the trip ends.
    """

    def __init__(
        self,
        root: Path,
        packages: tuple[str, ...],
        is_value: Callable[[Any], bool],
        *,
        is_end: Callable[[FrameType], bool] = lambda frame: False,
        last_file: str | None = None,
    ) -> None:
        self.entries: list[Entry] = []
        self.has_ended = False
        self._root, self._packages = f"{root.resolve()}/", packages
        self._is_value, self._is_end, self._last_file = is_value, is_end, last_file
        self._generators: list[FrameType] = []
        self._files: dict[str, str | None] = {}
        sys.addaudithook(self._audit)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow what runs inside, in all threads that it starts."""
        threading.setprofile(self._event)
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and self._last_file and self.entries:
            path, mode = arguments[:2]
            self.has_ended |= Path(str(path)).name == self._last_file and str(mode).startswith("w")

    def _event(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or self.has_ended:
            return
        if file := self._file(frame):
            self._look(frame, file)
        # Asked afterwards: the call that ends the trip is part of it.
        self.has_ended = self._is_end(frame)

    def _file(self, frame: FrameType) -> str | None:
        name = frame.f_code.co_filename
        if name not in self._files:
            relative = name.removeprefix(self._root)
            self._files[name] = relative if name != relative and relative.startswith(self._packages) else None
        return self._files[name]

    def _look(self, frame: FrameType, file: str) -> None:
        code = frame.f_code
        if code.co_name in _PASSING or any(frame is known for known in self._generators):
            return
        if code.co_flags & inspect.CO_GENERATOR:
            self._generators.append(frame)
        num_named = code.co_argcount + code.co_kwonlyargcount
        num_all = num_named + bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
        values = frame.f_locals
        given = {name: values[name] for name in code.co_varnames[:num_all] if name in values}
        if _members(given.get("self")) is not None:
            del given["self"]
        for itself in (True, False):
            for name, value in given.items():
                if self._holds(value, _DEPTH, itself=itself):
                    self.entries.append(Entry(file, code.co_name, name, self._caller(frame), itself))
                    return

    def _caller(self, frame: FrameType) -> str | None:
        above = frame.f_back
        while above is not None and self._file(above) is None:
            above = above.f_back
        return None if above is None else self._file(above)

    def _holds(self, value: Any, depth: int, *, itself: bool) -> bool:
        if depth == 0 or value is None or isinstance(value, bool | type):
            return False
        if self._is_value(value):
            return True
        if isinstance(value, str | bytes | int | float | Path) or (itself and _is_record(value)):
            return False
        if (members := _members(value)) is None and not itself and depth == _DEPTH:
            # An object that does work: its attributes, and what these hold as values.
            members = list(getattr(value, "__dict__", {}).values())
        return any(self._holds(member, depth - 1, itself=itself) for member in (members or ())[:_MEMBERS])


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) or hasattr(type(value), "model_fields")


def _members(value: Any) -> list[Any] | None:
    """What a container, a data set or a record consists of; None for other objects."""
    if isinstance(value, dict | UserDict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    if hasattr(type(value), "model_fields"):
        return list(vars(value).values())
    # Data sets and tables of rows, where they are small.
    if type(value).__name__ == "Dataset" and hasattr(value, "column_names"):
        return [value[:]] if len(value) <= _MAX_ROWS else []
    if hasattr(type(value), "to_pydict"):
        return [value.to_pydict()] if value.num_rows <= _MAX_ROWS else []
    return None
