"""Files that hold no rows that can be read as they are, known by their names, and what a person can do with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from data_registry.core.errors import InputError

_ARCHIVE: Final = "it is an archive: unpack it, and give the file or folder within"
_SHEET: Final = "it is a spreadsheet: save it as CSV in UTF-8"
_PICKLE: Final = "it is a pickle, which can run code when it is read: have the program that wrote it write JSON lines"
_DATABASE: Final = "it is a database: have it write the rows as CSV or JSON lines"
_WEIGHTS: Final = "it holds the weights of a model, not data"
_DOCUMENT: Final = 'write the rows one a line, as  {"messages": [{"role": "user", "content": ...}, ...]}'

_KINDS: Final = {
    **dict.fromkeys((".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar"), _ARCHIVE),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), _SHEET),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz", ".joblib"), _PICKLE),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".duckdb", ".sql"), _DATABASE),
    **dict.fromkeys((".safetensors", ".gguf", ".bin", ".onnx"), _WEIGHTS),
    **dict.fromkeys((".txt", ".md", ".yaml", ".yml", ".toml", ".xml", ".html", ".json5", ".py", ".log"), _DOCUMENT),
    **dict.fromkeys((".orc", ".avro", ".feather", ".h5", ".hdf5"), "have the program that wrote it write Parquet"),
}


def unknown_kind(path: Path, kinds: str) -> InputError:
    """The error for a file that cannot be read as data.

    Args:
        path: the file.
        kinds: those that can be, for the message.
    """
    return InputError(
        f"'{path}' is of no kind that can be read", fix="; ".join(filter(None, (_advice(path), f"kinds are: {kinds}")))
    )


def no_data(folder: Path, files: Iterable[Path], kinds: str) -> InputError:
    """The error for a folder without data, which says what to do with what is there instead.

    Args:
        folder: the folder.
        files: what lies in it.
        kinds: the kinds that can be read, for the message.
    """
    for file in sorted(files):
        advice = _advice(file)
        if advice in (_ARCHIVE, _SHEET, _PICKLE, _DATABASE):
            return InputError(f"the folder '{folder}' holds no data, but '{file.name}'", fix=advice)
    return InputError(f"the folder '{folder}' holds no data", fix=f"kinds that can be read: {kinds}")


def _advice(path: Path) -> str:
    """What to do with a file of this name; empty where no one knows it."""
    for suffix in reversed(path.suffixes[-2:]):
        if suffix.lower() in _KINDS:
            return _KINDS[suffix.lower()]
    return ""
