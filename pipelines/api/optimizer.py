"""Any torch optimizer with projection, for training loops of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from data_registry.core.errors import ArtifactError, ConfigError, EngineError, InputError
from pipelines.api.basis import Basis
from pipelines.api.models import bare_model
from pipelines.api.options import ProjectionOptions, Refresh, as_basis, make_projection
from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.transforms.chain import TransformChain

_KEY = "projection"


class ProjectedOptimizer(torch.optim.Optimizer):
    """An optimizer whose every step keeps off the reference subspace of a basis.

    It is used in the place of the optimizer that it wraps: in a plain loop, under DistributedDataParallel (in every
    rank, on gradients that ``backward`` has reduced), with learning rate schedulers, with gradient accumulation, and
    with ``torch.amp.GradScaler``. Hand ``max_grad_norm`` over rather than clipping yourself: clipping belongs between
    projection and step.

    Args:
        optimizer: any torch optimizer but those that evaluate a closure several times (LBFGS). It must hold all of the
            model's parameters with ``requires_grad``, and no others.
        model: the model that the basis belongs to, also in DistributedDataParallel.
        basis: what :func:`build_basis` returns, or the directory of a basis.
        space: ``"gradient"`` projects the gradient (the published rule); ``"update"`` makes the optimizer's change
            itself orthogonal, momentum and weight decay included.
        scope: what shares a subspace: every ``"tensor"``, every ``"layer"``, or all (``"global"``).
        strength: the share of the forbidden component that is removed; above 0, at most 1.
        momentum: ``"reproject"`` takes out of the optimizer's momentum, at every refresh, what lies in the basis.
        refresh: what a refresh computes the rows from: a function of the bare model that returns a basis, or batches
            as :func:`build_basis` takes them; by default the batches or samples that the basis keeps.
        refresh_every: the number of steps between refreshes; 0 keeps the rows, ``"auto"`` goes by ``max_drift``.
        max_drift: for ``"auto"``: refresh when rows have probably turned by so many degrees.
        refresh_at_start: refresh before the first step; by default where the basis was loaded from a directory, since
            nothing tells that it was built at the weights in memory.
        max_grad_norm: clip the whole gradient to this norm, after projection and before the step.
        measure_every: measure every so many steps (and the first one) for :meth:`figures`; 0 for never.

    Raises:
        ConfigError: options are unknown or contradict each other, or optimizer and model have different parameters.
        InputError: model or basis cannot be used.
        ArtifactError: what lies in the directory is no basis, or damaged.
        BasisMismatchError: the basis was built for other parameters.
        EngineError: parameters or optimizer are spread over ranks in a way that is not served.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        model: Any,
        basis: Basis | str | Path,
        *,
        space: Literal["gradient", "update"] = "gradient",
        scope: Literal["tensor", "layer", "global"] = "tensor",
        strength: float = 1.0,
        momentum: Literal["keep", "reproject"] = "keep",
        refresh: Refresh | None = None,
        refresh_every: int | Literal["auto"] = 30,
        max_drift: float = 20.0,
        refresh_at_start: bool | None = None,
        max_grad_norm: float | None = None,
        measure_every: int = 10,
    ) -> None:
        # The base class keeps parameters and state of its own, which would be second ones: it is not initialised.
        options = ProjectionOptions(
            space, scope, strength, momentum, refresh, refresh_every, max_drift, refresh_at_start
        )
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ConfigError(f"max_grad_norm is {max_grad_norm!r}, and should be above 0, or None")
        _check_optimizer(optimizer)
        bare = bare_model(model)
        _check_same_parameters(optimizer, bare)
        self.optimizer, self.max_grad_norm, self._measure_every = optimizer, max_grad_norm, measure_every
        self._access = ReplicatedAccess(bare)
        self._projection = make_projection(as_basis(basis), options, self._access, optimizer)
        self._chain = TransformChain(self._access, optimizer, [self._projection])
        self._steps = 0
        self._figures: dict[str, float] = {}

    # --- The wrapped optimizer's own ---

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimizer's groups themselves, so that a scheduler's learning rates reach it."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def state(self) -> Any:
        """The wrapped optimizer's state."""
        return self.optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        self.optimizer.state = state

    @property
    def defaults(self) -> dict[str, Any]:
        """The wrapped optimizer's defaults."""
        return self.optimizer.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.optimizer.defaults = defaults

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients, as the wrapped optimizer does."""
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse: a basis has rows for a fixed set of parameters.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "parameters cannot be added to a ProjectedOptimizer: its basis has rows for those that it was made with",
            fix="add the group to the optimizer first, build the basis for all parameters, and wrap the optimizer then",
        )

    def register_step_pre_hook(self, hook: Any) -> Any:
        """Register a hook on the wrapped optimizer: it sees the gradient that is stepped with."""
        return self.optimizer.register_step_pre_hook(hook)

    def register_step_post_hook(self, hook: Any) -> Any:
        """Register a hook on the wrapped optimizer: in update space it sees the change before its projection."""
        return self.optimizer.register_step_post_hook(hook)

    def __repr__(self) -> str:
        settings = self._projection.settings
        return f"ProjectedOptimizer(space={settings.space!r}, scope={settings.scope!r}, {self.optimizer!r})"

    def __getstate__(self) -> dict[str, Any]:
        raise ConfigError(
            "a ProjectedOptimizer cannot be pickled or copied: it belongs to its model",
            fix="save optimizer.state_dict()",
        )

    # --- The step ---

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Refresh the rows if that is due, project, clip, and step.

        Args:
            closure: computes the loss and its gradient, once; its result is returned.

        Raises:
            InputError: no parameter has a gradient.
            EngineError: at the first step, the optimizer did not read the projected gradient.
            NumericsError: a row of a refresh is not finite.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if all(gradient is None for gradient in self._access.gradients()):
            raise InputError(
                "no parameter has a gradient, so that there is nothing to step with",
                fix="call loss.backward() before step(), and zero_grad() after it",
            )
        if self._chain.refresh_due(self._steps):
            self._chain.refresh(self._steps)
        every = self._measure_every
        measured = every > 0 and (self._steps == 0 or (self._steps + 1) % every == 0)
        self._chain.at_boundary(measured=measured)
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._access.module.parameters(), self.max_grad_norm)
        self.optimizer.step()
        self._chain.end_step()
        self._steps += 1
        if measured:
            self._figures = self._chain.figures()
        return loss

    def figures(self) -> dict[str, float]:
        """Figures of the last measured step, and of a refresh since the one before; empty before the first step.

        The names are those of the commands' logs: ``projection/removed``, ``projection/removed_random``,
        ``projection/conflict/NAME``, ``projection/leak/NAME``, ``projection/reference_loss/NAME``,
        ``projection/drift_degrees``.
        """
        return dict(self._figures)

    def close(self) -> torch.optim.Optimizer:
        """Take the projection off, and return the wrapped optimizer, which then steps as before."""
        self._chain.close()
        return self.optimizer

    # --- Checkpoints ---

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state, and under ``projection`` the number of steps and the rows in force.

        All values are tensors, numbers and texts, so that ``torch.load(..., weights_only=True)`` reads them.
        """
        rows = dict(zip(self._access.names, self._projection.projector.rows, strict=True))
        own = {"steps": self._steps, "state": self._projection.state(), "rows": rows}
        return {**self.optimizer.state_dict(), _KEY: own}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`; a run that goes on equals one that was never stopped, to the bit.

        Raises:
            ArtifactError: it is not that of a ProjectedOptimizer of this model.
        """
        own = state_dict.get(_KEY)
        shapes = {name: list(row.shape) for name, row in own["rows"].items()} if own else {}
        projector = self._projection.projector
        here = {name: list(row.shape) for name, row in zip(self._access.names, projector.rows, strict=True)}
        if shapes != here:
            what = "has no projection in it" if own is None else "belongs to another model or basis"
            raise ArtifactError(
                f"this optimizer state {what}", fix="load what state_dict() of a ProjectedOptimizer returned"
            )
        assert own is not None
        self.optimizer.load_state_dict({key: value for key, value in state_dict.items() if key != _KEY})
        device = self._access.rows_device()
        rows: list[Tensor] = [own["rows"][name].detach().clone().to(device) for name in self._access.names]
        self._steps = int(own["steps"])
        self._projection.restore(own["state"], {"rows": rows})


def _check_optimizer(optimizer: Any) -> None:
    if isinstance(optimizer, ProjectedOptimizer):
        raise ConfigError("the optimizer has a projection already")
    if not isinstance(optimizer, torch.optim.Optimizer):
        if type(optimizer).__module__.startswith("deepspeed"):
            raise EngineError(
                f"a ProjectedOptimizer does not serve DeepSpeed's {type(optimizer).__name__}",
                fix="train with projected(...) of a Trainer, which serves DeepSpeed, or with the commands",
            )
        raise InputError(f"a torch optimizer is needed, and this is a {type(optimizer).__name__}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError("LBFGS evaluates its closure several times in a step, between which nothing can be projected")


def _check_same_parameters(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> None:
    trained = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if left := [name for key, name in trained.items() if key not in held]:
        raise ConfigError(
            f"{len(left)} parameters require gradients and are not in the optimizer, such as '{left[0]}'",
            fix="give them to the optimizer, or set requires_grad=False before the basis is built",
        )
    known = {id(parameter) for parameter in model.parameters()}
    if foreign := len(held - known):
        raise ConfigError(f"{foreign} parameters of the optimizer are not in the model", fix="give their model")
