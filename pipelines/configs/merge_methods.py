"""The methods of ``ogpsa merge``: each has an entry that says what it needs and which module does its arithmetic.

A new method is a module with the functions that :mod:`pipelines.merging.methods` describes, and an entry here: the
options, their help and their checks, the dry run and the result follow from it. Modules are named and not imported,
since options are read without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Form = Literal["factors", "dense", "weights"]


@dataclass(frozen=True)
class Published:
    """Where a published script computes something else than we do, for ``--original-semantics``.

    Attributes:
        repairs_at_threshold: whether the script repairs a layer whose cosine equals the threshold.
        adds_factors: whether the script adds factors instead of changes, also in kept layers.
    """

    repairs_at_threshold: bool = False
    adds_factors: bool = False


@dataclass(frozen=True)
class MergeMethod:
    """A method of merging.

    Attributes:
        name: the name of the method on the command line.
        summary: what the method does, as the help says it.
        module: the module with the functions ``on_factors``, ``on_dense`` and ``on_weights``, as far as ``works_on``
            names them; empty where ``--merge-type`` names the method whose functions are used.
        works_on: the forms that the method can merge: low-rank factors, dense changes, and, if the two merge weights
            sum to 1, the models' weights themselves. All methods work on dense changes.
        has_criterion: whether only the layers whose cosine is below a threshold are repaired; otherwise all are merged.
        takes_safe: whether the method merges the safe change in; otherwise it repairs the fine-tuned change alone.
        takes_density: whether its functions have the argument ``density``.
        takes_direction: whether its functions have the argument ``direction``, the direction of alignment.
        is_random: whether its ``on_dense`` has the argument ``generator``.
        action: the report's word for what was done to a repaired layer.
        published: how a published script differs; None where no script does.
    """

    name: str
    summary: str
    module: str = ""
    works_on: Sequence[Form] = ()
    has_criterion: bool = False
    takes_safe: bool = True
    takes_density: bool = False
    takes_direction: bool = False
    is_random: bool = False
    action: Literal["merged", "projected"] = "merged"
    published: Published | None = None

    def __post_init__(self) -> None:
        assert not self.module or "dense" in self.works_on, f"{self.name} needs a function for dense changes"
        # With adapters only the projection of a factor is known, never the direction as a whole.
        assert not self.takes_direction or "factors" in self.works_on, f"{self.name} needs a function for factors"

    @property
    def uses_merge_type(self) -> bool:
        """Whether ``--merge-type`` names the method by which a layer is repaired."""
        return not self.module

    @property
    def uses_seed(self) -> bool:
        """Whether the method is random, or the compression of its dense results into an adapter."""
        return bool(self.module) and (self.is_random or "factors" not in self.works_on)

    def needs_base(self, weights: Sequence[float]) -> bool:
        """Whether full models are merged by their changes from a base, rather than by their weights alone."""
        return "weights" not in self.works_on or abs(sum(weights) - 1) >= 1e-9


_FOLDER = "pipelines.merging.methods"
_ENTRIES = (
    MergeMethod("safemerge", "merges the layers below the threshold", has_criterion=True),
    MergeMethod(
        "safelora",
        "projects them",
        module=f"{_FOLDER}.safelora",
        works_on=("factors", "dense"),
        has_criterion=True,
        takes_safe=False,
        takes_direction=True,
        action="projected",
        published=Published(repairs_at_threshold=True),
    ),
    MergeMethod(
        "linear",
        "the weighted sum",
        module=f"{_FOLDER}.linear",
        works_on=("factors", "dense", "weights"),
        published=Published(adds_factors=True),
    ),
    MergeMethod(
        "ties",
        "the mean of large elements whose sign is the elected one",
        module=f"{_FOLDER}.ties",
        works_on=("dense",),
        takes_density=True,
    ),
    MergeMethod(
        "dare-linear",
        "the weighted sum of randomly thinned changes",
        module=f"{_FOLDER}.dare_linear",
        works_on=("factors", "dense"),
        takes_density=True,
        is_random=True,
    ),
)

METHODS: Mapping[str, MergeMethod] = {entry.name: entry for entry in _ENTRIES}


def merge_types() -> list[str]:
    """The methods that may repair a layer for a method with a criterion: those that can merge all layers."""
    return [method.name for method in METHODS.values() if not method.has_criterion]
