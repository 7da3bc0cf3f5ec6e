"""An engine for reference passes alone: the model spread over ranks as in training, but nothing is ever stepped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pipelines.engine.shards.access import ShardAccess
from pipelines.engine.shards.opening import open_shards


@dataclass(frozen=True)
class ReferenceEngine:
    """A model ready for reference passes.

    Attributes:
        forward: the callable that takes a batch: the engine, or the bare model.
        access: this rank's shards.
    """

    forward: Any
    access: ShardAccess


@contextlib.contextmanager
def zero3_loading(ds_config: dict[str, Any] | None) -> Iterator[None]:
    """A context in which ``from_pretrained`` loads weights spread over ranks, if ZeRO stage 3 is configured."""
    if ds_config is None or ds_config.get("zero_optimization", {}).get("stage") != 3:
        yield
        return
    from transformers.integrations import HfDeepSpeedConfig

    holder = HfDeepSpeedConfig(_filled(ds_config, batch_size=1))
    try:
        yield
    finally:
        del holder


def reference_engine(
    model: torch.nn.Module, ds_config: dict[str, Any] | None, *, batch_size: int, precision: str, device: torch.device
) -> ReferenceEngine:
    """Prepare ``model`` for reference passes.

    Args:
        model: the model, with the loss head added; frozen parameters get no rows.
        ds_config: DeepSpeed's configuration, None without it.
        batch_size: the number of samples in one forward pass, per rank.
        precision: ``"bf16"`` runs under autocast where DeepSpeed does not hold the weights in bf16.
        device: the device to compute on.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # A model that is frozen as a whole, as one in four bits is, has nothing for an engine to spread over ranks.
    if ds_config is None or not parameters:
        model.to(device)
        return ReferenceEngine(_autocast(model, precision, device), open_shards(model))
    import deepspeed

    # Plain SGD keeps no state: the engine wants an optimizer before it reduces and partitions gradients.
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=_filled(ds_config, batch_size=batch_size)
    )
    access = open_shards(engine.module, engine)
    return ReferenceEngine(access.forward, access)


def _filled(ds_config: dict[str, Any], *, batch_size: int) -> dict[str, Any]:
    own = {"train_micro_batch_size_per_gpu": batch_size, "gradient_accumulation_steps": 1, "gradient_clipping": 0.0}
    filled = {key: value for key, value in ds_config.items() if key != "train_batch_size"}
    return filled | own


def _autocast(model: torch.nn.Module, precision: str, device: torch.device) -> Any:
    if precision != "bf16":
        return model

    def forward(**inputs: Any) -> Any:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return model(**inputs)

    # What looks for the model inside finds it where wrappers keep it.
    forward.module = model  # type: ignore[attr-defined]
    return forward
