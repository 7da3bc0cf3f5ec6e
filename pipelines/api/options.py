"""How a loop or trainer of one's own projects: the options of the commands, checked, and the transform they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from data_registry.core.documents import suggest
from data_registry.core.errors import ConfigError, InputError
from pipelines.api.basis import Basis, headed
from pipelines.api.batches import Batches, batch_sets
from pipelines.api.models import causal_model
from pipelines.basis.objectives.tokens import token_loss_sum
from pipelines.engine.shards.access import ShardAccess
from pipelines.passes.gradients import LossSum, Objective, ReferenceResult
from pipelines.transforms.projection import Projection, ProjectionSettings, keeps_momentum

Refresh = Callable[[Any], Basis] | Batches
"""What a refresh computes rows from: a function of the bare model that returns a basis, or batches as for a basis."""


@dataclass(frozen=True)
class ProjectionOptions:
    """The options of a projection, as the training commands have them.

    Attributes:
        space: ``"gradient"`` or ``"update"``.
        scope: ``"tensor"``, ``"layer"`` or ``"global"``.
        strength: the share of the forbidden component that is removed, above 0 and at most 1.
        momentum: ``"keep"`` or ``"reproject"``.
        refresh: what a refresh computes rows from; None for the batches or samples that the basis keeps.
        refresh_every: the number of steps between refreshes; 0 for none, ``"auto"`` for when rows have turned.
        max_drift: for ``"auto"``, the degrees that rows may turn.
        refresh_at_start: whether rows are computed before the first step; None: if the basis was loaded.
    """

    space: Literal["gradient", "update"] = "gradient"
    scope: Literal["tensor", "layer", "global"] = "tensor"
    strength: float = 1.0
    momentum: Literal["keep", "reproject"] = "keep"
    refresh: Refresh | None = None
    refresh_every: int | Literal["auto"] = 30
    max_drift: float = 20.0
    refresh_at_start: bool | None = None

    def __post_init__(self) -> None:
        problems = self._choices() + self._numbers()
        if self.momentum == "reproject" and (self.space != "gradient" or self.refresh_every == 0):
            problems.append("momentum='reproject' acts at refreshes in gradient space: it needs both")
        if self.refresh_every == 0 and (self.refresh is not None or self.refresh_at_start):
            problems.append("refresh and refresh_at_start have no effect with refresh_every=0")
        if problems:
            raise ConfigError(problems)

    def _choices(self) -> list[str]:
        known = {
            "space": ("gradient", "update"),
            "scope": ("tensor", "layer", "global"),
            "momentum": ("keep", "reproject"),
        }
        given = {name: getattr(self, name) for name in known}
        return [
            f"{name} is {value!r}, and should be one of: {', '.join(known[name])}"
            + (suggest(value, known[name]) if isinstance(value, str) else "")
            for name, value in given.items()
            if value not in known[name]
        ]

    def _numbers(self) -> list[str]:
        problems = []
        every = self.refresh_every
        if every != "auto" and (not isinstance(every, int) or isinstance(every, bool) or every < 0):
            problems.append(f"refresh_every is {every!r}, and should be a number of steps, 0 or more, or 'auto'")
        if not _is_number(self.strength) or not 0 < self.strength <= 1:
            problems.append(f"strength is {self.strength!r}, and should be above 0 and at most 1")
        if not _is_number(self.max_drift) or not 0 < self.max_drift <= 90:
            problems.append(f"max_drift is {self.max_drift!r}, and should be above 0 and at most 90 degrees")
        return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_basis(basis: Any) -> Basis:
    """A basis, or the one that lies in a directory.

    Raises:
        InputError: it is neither, or there is no artifact.
        ArtifactError: what lies there is no basis, or damaged.
    """
    if isinstance(basis, Basis):
        return basis
    if isinstance(basis, str | Path):
        return Basis.load(basis)
    raise InputError(
        f"a basis is needed, and this is a {type(basis).__name__}",
        fix="give what build_basis returns, Basis.from_rows(model, rows), or the directory of a basis",
    )


def make_projection(
    basis: Basis, options: ProjectionOptions, access: ShardAccess, optimizer: torch.optim.Optimizer
) -> Projection:
    """The projection as a transform of a step.

    Raises:
        BasisMismatchError: the basis was built for other parameters.
        ConfigError: the optimizer keeps no momentum, or there is nothing to refresh rows from.
        InputError: batches of a refresh cannot be used.
    """
    inner = causal_model(access.module)
    basis.check(access, type(inner).__name__)
    if options.momentum == "reproject" and not keeps_momentum(optimizer):
        raise ConfigError(
            f"momentum='reproject' does not serve the optimizer {type(optimizer).__name__}: it keeps no running mean "
            "of gradients that could be projected",
            fix="use AdamW, or momentum='keep'",
        )
    called = options.refresh if callable(options.refresh) else None
    objectives, loss = _refreshed_from(basis, options, access, inner)
    at_start = basis.directory is not None if options.refresh_at_start is None else options.refresh_at_start
    settings = ProjectionSettings(
        space=options.space,
        refresh_every=options.refresh_every,
        refresh_at_start=options.refresh_every != 0 and at_start,
        strength=options.strength,
        scope=options.scope,
        momentum=options.momentum,
        max_drift=options.max_drift,
    )
    rate = lambda: max(float(group["lr"]) for group in optimizer.param_groups)  # noqa: E731
    rows = basis.slices(access)
    if called is not None:
        return CalledProjection(called, settings, access, rows, objectives, loss, learning_rate=rate)
    return Projection(settings, access, rows, objectives, loss, learning_rate=rate)


def _refreshed_from(
    basis: Basis, options: ProjectionOptions, access: ShardAccess, inner: Any
) -> tuple[list[Objective], LossSum]:
    rank = dist.get_rank() if access.world_size > 1 else 0
    if options.refresh is not None and not callable(options.refresh):
        sets = batch_sets(options.refresh, own_loss=False)
        if len(sets) != basis.rank:
            raise InputError(
                f"refresh has {len(sets)} sets of batches, and the basis {basis.rank} rows: {', '.join(basis.names)}",
                fix="give one set for each row",
            )
        return [each.objective(rank, access.world_size) for each in sets], headed(token_loss_sum)
    if options.refresh is None and options.refresh_every != 0 and not basis.can_refresh:
        raise ConfigError(
            "the basis keeps no batches that its rows could be computed again from",
            fix="give  refresh=...,  or keep the rows as they are:  refresh_every=0",
        )
    pad = getattr(getattr(inner, "config", None), "pad_token_id", None)
    return basis.objectives(rank, access.world_size, 0 if pad is None else int(pad))


class CalledProjection(Projection):
    """A projection whose rows are computed by a function of the user's.

    Args:
        refresh: takes the bare model, and returns a basis of it with as many rows.
        args: as for :class:`Projection`.
        kwargs: likewise.
    """

    def __init__(self, refresh: Callable[[Any], Basis], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refresh = refresh

    def compute_rows(self) -> ReferenceResult:
        """See :class:`Projection`."""
        with self.access.untraced():
            basis = as_basis(self._refresh(self.access.module))
        basis.check(self.access, type(causal_model(self.access.module)).__name__)
        if basis.names != self.names:
            raise InputError(
                f"refresh returned a basis with the rows {', '.join(basis.names)}, and not {', '.join(self.names)}"
            )
        return ReferenceResult([row.float() for row in basis.slices(self.access)], list(basis.losses.values()))
