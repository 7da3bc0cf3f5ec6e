"""Files that options name: what stands in them determines a result, and not where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_registry.core.errors import InputError
from data_registry.core.manifest import InputRecord, hash_file


def option_file_inputs(files: Mapping[str, Path | None]) -> list[InputRecord]:
    """Records of the files that options name, for the manifest.

    Args:
        files: the files by their role, such as ``"chat template"``; None where the option is not given.

    Raises:
        InputError: a file cannot be read.
    """
    records = []
    for role, path in files.items():
        if path is None:
            continue
        try:
            digest = hash_file(path)
        except OSError as error:
            raise InputError(f"the {role} cannot be read: {error.strerror or error}", where=str(path)) from error
        records.append(InputRecord(role=role, path=str(path), kind="file", fingerprint=digest))
    return records
