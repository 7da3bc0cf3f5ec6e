"""What libraries do on the way and a language model's training never needs: left out until it is asked for after all.

Nothing is computed otherwise. Each entry takes hold only where a library still has the name, so that another version of
it costs time and nothing else.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

# Losses of models that detect objects, by which transformers imports scipy.optimize for every model.
_DETECTION: Final = "transformers.loss.loss_for_object_detection"
_WITH_SCIPY: Final = (
    "transformers.loss.loss_deformable_detr",
    "transformers.loss.loss_grounding_dino",
    _DETECTION,
)
_MATCHING: Final = "linear_sum_assignment"


def leave_out(*, with_trl: bool = False) -> None:
    """Import transformers and accelerate without what only other uses of them need.

    Call it before the trainer is imported; a second call does nothing.

    Args:
        with_trl: whether TRL will be needed; it is then imported too.
    """
    _without_reading_twice()
    if _DETECTION not in sys.modules:
        _without_scipy()
    if with_trl:
        _without_all_packages()
    other: Any = importlib.import_module("accelerate.utils.other")
    if hasattr(other, "is_deepspeed_available"):
        # A model can only be DeepSpeed's engine if DeepSpeed has been imported.
        other.is_deepspeed_available = lambda: "deepspeed" in sys.modules


def _without_reading_twice() -> None:
    """Give ``transformers.models`` the names that transformers itself has just read from the files of all its models.

    It would read these 1,600 files again, for the same names.
    """
    transformers = importlib.import_module("transformers")
    reading: Any = importlib.import_module("transformers.utils.import_utils")
    read = getattr(reading, "define_import_structure", None)
    if "transformers.models" in sys.modules or read is None:
        return
    folder = Path(str(transformers.__file__)).parent / "models"
    known = names_within(read(folder, prefix="models"), "models.")

    def define_import_structure(module_path: Any, prefix: str | None = None) -> Any:
        return known if prefix is None and Path(module_path) == folder / "__init__.py" else read(module_path, prefix)

    reading.define_import_structure = define_import_structure
    try:
        importlib.import_module("transformers.models")
    finally:
        reading.define_import_structure = read


def names_within(structure: Mapping[Any, Mapping[str, Any]], prefix: str) -> dict[Any, dict[str, Any]]:
    """What each module exports, by what it requires and by its name, of the modules below ``prefix``, without that."""
    found = {
        requirements: {name.removeprefix(prefix): names for name, names in modules.items() if name.startswith(prefix)}
        for requirements, modules in structure.items()
    }
    return {requirements: modules for requirements, modules in found.items() if modules}


class Distributions(Mapping[str, list[str]]):
    """The distributions that provide a package, looked for when they are asked for.

    A package whose distribution has its name, as nearly all have, is answered without the files of all others.

    Args:
        everything: ``importlib.metadata.packages_distributions``, which reads the records of all that is installed.
    """

    def __init__(self, everything: Callable[[], Mapping[str, list[str]]]) -> None:
        self._everything = everything
        self._read: Mapping[str, list[str]] | None = None

    def _all(self) -> Mapping[str, list[str]]:
        if self._read is None:
            self._read = self._everything()
        return self._read

    def __getitem__(self, package: str) -> list[str]:
        """The names of the distributions; of several, that which is called like the package, as TRL prefers it.

        Raises:
            KeyError: nothing that is installed provides the package.
        """
        if self._read is None:
            try:
                return [str(importlib.metadata.distribution(package).metadata["Name"])]
            except importlib.metadata.PackageNotFoundError:
                pass
        return self._all()[package]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def _without_all_packages() -> None:
    """Import TRL, which asks which distributions provide which packages, of all, and needs the answer for two."""
    if "trl" in sys.modules:
        return
    everything = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = lambda: Distributions(everything)
    try:
        importlib.import_module("trl")
    finally:
        importlib.metadata.packages_distributions = everything


def _without_scipy() -> None:
    utils: Any = importlib.import_module("transformers.utils")
    is_there = getattr(utils, "is_scipy_available", None)
    if is_there is None or not is_there():
        return
    utils.is_scipy_available = lambda: False
    try:
        importlib.import_module("transformers.modeling_utils")
    finally:
        utils.is_scipy_available = is_there
    for name in _WITH_SCIPY:
        module = sys.modules.get(name)
        if module is not None:
            _when_called(module)


def _when_called(module: ModuleType) -> None:
    """Give a module the function that it would have imported, as one that is imported when it is called."""
    if hasattr(module, _MATCHING):
        return

    def linear_sum_assignment(*arguments: Any, **options: Any) -> Any:
        from scipy import optimize

        return optimize.linear_sum_assignment(*arguments, **options)

    setattr(module, _MATCHING, linear_sum_assignment)
