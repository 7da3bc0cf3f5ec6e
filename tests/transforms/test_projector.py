"""What weights lose of their change is rounded once, at the weights: not with every row."""

from __future__ import annotations

import pytest
import torch

from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.transforms.projector import Projector


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_weights_that_lose_a_part_of_their_change_are_rounded_once(stored: torch.dtype) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(400, 5, bias=False)
    rows = torch.randn(6, 2000).to(stored)
    projector = Projector(ReplicatedAccess(model), [rows])
    before = torch.randn(2000)
    after = before + 1e-5 * torch.randn(2000)
    change, wide = after.double() - before.double(), rows.double()
    wanted = after.double() - wide.T @ torch.linalg.solve(wide @ wide.T, wide @ change)
    result = after.clone()
    projector.project_([result], minus=[before])
    spacing = torch.nextafter(wanted.float().abs(), torch.tensor(torch.inf)).double() - wanted.float().abs().double()
    lost = (wanted - after).abs().max()
    assert float(lost) > 0
    # Half a step of float32, and the rounding of what is taken off.
    assert bool(((result.double() - wanted).abs() <= 0.5 * spacing + 1e-5 * lost).all())
