"""Change tracking: how far every weight has moved in a run, from the master weights in full precision.

The saved model of a bf16 run does not hold small changes; the master weights do. Neuron masks are chosen by the change.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipelines.basis import storage
from pipelines.core.job import rank
from pipelines.engine.shards.access import ShardAccess
from pipelines.transforms.transform import Transform

FOLDER = "change"


class ChangeTracking(Transform):
    """Keeps the starting weights of this rank's shards, and writes the distance to them at the end.

    Args:
        access: this rank's shards, as training begins.
    """

    name: ClassVar[str] = "change"
    order: ClassVar[int] = 90

    def __init__(self, access: ShardAccess) -> None:
        self.access = access
        self._start = [master.weights().detach().clone() for master in access.masters()]

    def tensors(self) -> dict[str, Sequence[Tensor]]:
        """The weights from the start of the run."""
        return {"start": self._start}

    def restore(self, state: dict[str, Any], tensors: dict[str, list[Tensor]]) -> None:
        """Take the run's starting weights from the checkpoint, in place of the weights that it resumes at."""
        self._start = tensors["start"]

    def finish(self, directory: Path) -> dict[str, Any]:
        """Write |theta_end - theta_start| as ``[1, n_t]`` float32 rows by parameter name. Collective."""
        rows = [
            (master.weights().detach().float() - start.float()).abs()[None]
            for master, start in zip(self.access.masters(), self._start, strict=True)
        ]
        folder = directory / FOLDER
        if rank() == 0:
            folder.mkdir()
        moved = storage.write_rows(folder, self.access, rows, torch.float32, stem=FOLDER)
        if moved is None:
            return {}
        return {"change_norm": float(moved.sum().sqrt())}
