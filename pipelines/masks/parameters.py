"""The parameters that a mask speaks of, by the names that they have in training, and where their weights lie."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError
from pipelines.weights.stored import Checkpoint
from pipelines.weights.writing import natural


@dataclass(frozen=True)
class Parameter:
    """A parameter of the model.

    Attributes:
        name: its name as in ``named_parameters()``; a weight that is tied has one.
        shape: its shape.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def parameters_of(checkpoint: Checkpoint) -> list[Parameter]:
    """The parameters of a model in canonical order: by depth and name.

    Where transformers does not know the architecture, they are the floating tensors on disk.

    Raises:
        InputError: a parameter is not on disk, or of another shape there.
    """
    shapes = checkpoint.architecture.parameters or {
        name: stored.shape for name, stored in checkpoint.stored.items() if stored.is_float
    }
    for name, shape in shapes.items():
        checkpoint.need(name, shape)
    return [Parameter(name, shapes[name]) for name in sorted(shapes, key=natural)]


def eligible(parameters: Sequence[Parameter], include: Sequence[str], exclude: Sequence[str]) -> list[Parameter]:
    """The parameters among whose weights a mask chooses.

    Args:
        parameters: all parameters.
        include: names or patterns; empty for all parameters.
        exclude: names or patterns of those that are left out.

    Raises:
        ConfigError: a pattern names no parameter, or none is left.
    """
    names = [parameter.name for parameter in parameters]
    problems = []
    chosen = {"--include": set(names) if not include else set(), "--exclude": set[str]()}
    for option, patterns in (("--include", include), ("--exclude", exclude)):
        for pattern in patterns:
            found = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
            if not found:
                problems.append(f"{option} {pattern} names no parameter of the model{suggest(pattern, names)}")
            chosen[option] |= found
    if problems:
        raise ConfigError(problems, fix=f"names such as {names[-1]}, or patterns such as '*.mlp.*'")
    left = chosen["--include"] - chosen["--exclude"]
    if not left:
        raise ConfigError(
            "--include and --exclude leave no parameter to choose weights from",
            fix="leave out some of the patterns",
        )
    return [parameter for parameter in parameters if parameter.name in left]
