"""What only happens on GPUs, as far as it can be seen without one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trl import SFTConfig

from data_registry.core.errors import ConfigError
from pipelines.configs.train import TrainSftConfig
from pipelines.engine import processes
from pipelines.engine.shards.access import Shard
from pipelines.engine.shards.replicated import ReplicatedAccess
from pipelines.engine.shards.zero3 import Zero3Access
from pipelines.engine.shards.zero12 import Zero12Access
from pipelines.training import arguments


class Copies:
    """Gradients on their way to the host: there once the GPU was waited for, as with pinned memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there = torch.zeros(3)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: self.there.fill_(1.0))


def zero12(gradient: torch.Tensor) -> Zero12Access:
    mapping = SimpleNamespace(get_lp_grad_fragment=lambda index: gradient.clone())
    access = object.__new__(Zero12Access)
    access.optimizer = SimpleNamespace(cpu_offload=True)
    access.shards = [Shard(0, 0, 3)]
    access._present = [(0, SimpleNamespace(_hp_mapping=mapping, _index_in_param_group=0))]  # type: ignore[list-item]
    return access


def zero3(gradient: torch.Tensor) -> Zero3Access:
    access = object.__new__(Zero3Access)
    access.optimizer = SimpleNamespace(
        offload_optimizer=True,
        _get_fp32_grad_state_partition=lambda parameter, **_: (gradient.clone(), 0),
        get_param_id=lambda parameter: 7,
        norm_for_param_grads={7: torch.ones((), device="meta"), 8: torch.ones((), device="meta")},
    )
    access.shards = [Shard(0, 0, 3)]
    access._present = [(0, SimpleNamespace())]  # type: ignore[list-item]
    return access


@pytest.mark.parametrize("make", [zero12, zero3])
def test_offloaded_gradients_are_read_when_they_have_arrived(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Copies(monkeypatch)
    (gradient,) = make(copies.there).gradients()
    assert gradient.tolist() == [1.0, 1.0, 1.0]


def test_norms_stay_on_the_device_on_which_they_are_added_up() -> None:
    access = zero3(torch.ones(3))
    access.gradients_edited()
    assert {norm.device.type for norm in access.optimizer.norm_for_param_grads.values()} == {"meta"}


def test_a_gradient_may_lie_in_another_order_than_its_parameter() -> None:
    class Transposed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
            return weight.sum()

        @staticmethod
        def backward(ctx: Any, outer: torch.Tensor) -> torch.Tensor:
            return torch.arange(6.0).view(3, 2).T

    module = torch.nn.Linear(3, 2, bias=False)
    access, row = ReplicatedAccess(module), torch.zeros(6)
    access.accumulate(Transposed.apply(module.weight), last=True, into=[row])
    assert row.view(2, 3).tolist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]


def test_one_process_computes_on_one_gpu_however_many_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Seeing(SFTConfig):
        def __post_init__(self) -> None:
            super().__post_init__()
            self._n_gpu = 4

    config = TrainSftConfig(model="m", data=tmp_path, out=tmp_path / "out", precision="fp32", batch_size=2)
    made = arguments.trainer_arguments(Seeing, config, tmp_path, None)
    assert (made.n_gpu, made.train_batch_size) == (1, 2)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="process 3 of this machine has no GPU of its own: 2 can be seen"):
        processes.start()
