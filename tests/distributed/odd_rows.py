"""Rows that divide over neither ranks nor forward passes: runs of any layout against whole steps in plain PyTorch."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from pipelines.commands import train_dpo, train_npo, train_sft
from pipelines.configs.train import TrainDpoConfig, TrainSftConfig
from pipelines.configs.train_npo import TrainNpoConfig
from pipelines.core.job import on_main, world_size
from tests.distributed import worlds
from tests.distributed.ranks import forget_engine
from tests.reference import plain
from tests.reference.unlearning_plain import Unlearning, unlearning_loss
from tests.training import small_token_weights

ROWS_PER_STEP, EPOCHS, LR, CLIP, EPS, BETA = 8, 2, 1e-3, 0.5, 1e-6, 0.2
# The last step has rows for half of the forward passes, for none but one rank, and as many as it can but one.
CASES: list[tuple[str, int, int, dict[str, Any]]] = [
    ("sft", 21, 2, {"zero": 2}),
    ("sft", 22, 4, {}),
    ("sft", 23, 2, {"zero": 3}),
    ("sft", 17, 2, {"zero": 3}),
    ("dpo", 21, 2, {}),
    ("dpo", 22, 4, {"zero": 3}),
    ("dpo", 23, 2, {"zero": 0}),
    ("dpo", 17, 2, {"zero": 2}),
    ("npo-token", 21, 2, {"zero": 2}),
    ("npo", 22, 4, {"zero": 3}),
    ("simnpo", 17, 2, {"zero": 1}),
    ("npo-token", 23, 2, {}),
    ("npo", 21, 2, {"zero": 0}),
    ("npo-token", 22, 4, {"zero": 2, "offload": True}),
    ("simnpo", 23, 2, {"zero": 3, "offload": True}),
]
COMMANDS: dict[str, tuple[Any, Any]] = {
    "sft": (train_sft, TrainSftConfig), "dpo": (train_dpo, TrainDpoConfig),
    **dict.fromkeys(("npo-token", "npo", "simnpo"), (train_npo, TrainNpoConfig)),
}  # fmt: skip
RETAIN = 0.5


def apart_from_plain(directory: Path) -> dict[str, float]:
    """The largest difference of any weight, for every case, with the engine left out in one process."""
    found = {}
    for method, num_rows, batch_size, engine in CASES:
        data = directory / f"{method}-{num_rows}"
        on_main(functools.partial(_make, method, data, num_rows))
        # Before the plain model is loaded too: the last run may have been one of ZeRO 3.
        forget_engine()
        expected = _plain_weights(method, directory / "model", data, num_rows)
        command, config_class = COMMANDS[method]
        config = config_class(
            model=str(directory / "model"),
            data=data,
            out=directory / f"{data.name}-on-{world_size()}" / "run",
            precision="fp32",
            epochs=EPOCHS,
            learning_rate=LR,
            max_grad_norm=CLIP,
            schedule="constant",
            batch_size=batch_size,
            accumulation=ROWS_PER_STEP // batch_size // world_size(),
            trainer={"train_sampling_strategy": "sequential", "adam_epsilon": EPS},
            **(engine if world_size() > 1 else {}),
            **_of_loss(method, data),
        )
        weights = load_file(command.run(config).path / "model" / "model.safetensors")
        found[data.name] = max(float((weights[name] - value).abs().max()) for name, value in expected.items())
    return found


def _make(method: str, data: Path, num_rows: int) -> None:
    if data.exists():
        return
    (worlds.make_data if method == "sft" else worlds.make_pairs)(data, num_rows, seed=num_rows)
    if method == "npo-token":
        pairs = _weighted(worlds.encoded_pairs(data, data.parent / "model"))
        answers = [(pair["rejected_ids"], pair["weights"]) for pair in pairs]
        small_token_weights.store(data.with_name(f"{data.name}-weights"), {"rejected": answers})


def _of_loss(method: str, data: Path) -> dict[str, Any]:
    if method in ("sft", "dpo"):
        return {"beta": BETA} if method == "dpo" else {}
    weights = {"token_weights": data.with_name(f"{data.name}-weights")} if method == "npo-token" else {}
    return {"loss": method, "beta": BETA, "retain_weight": RETAIN, **weights}


def _weighted(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some tokens of rejected answers count less than others, and a third of them not at all."""
    of_pair = [
        [(7 * row + place) % 3 / 2 for place in range(len(pair["rejected_ids"]))] for row, pair in enumerate(pairs)
    ]
    return [{**pair, "weights": weights} for pair, weights in zip(pairs, of_pair, strict=True)]


def _plain_weights(method: str, model: Path, data: Path, num_rows: int) -> dict[str, Tensor]:
    network, reference = (AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32) for _ in range(2))
    rows = worlds.encoded(data, model) if method == "sft" else worlds.encoded_pairs(data, model)
    if method == "npo-token":
        rows = _weighted(rows)

    def preference_loss(network: nn.Module, pairs: Any) -> Tensor:
        return plain.mean_preference_loss(network, reference, pairs, BETA)

    def forgetting(network: nn.Module, pairs: Any) -> Tensor:
        return unlearning_loss(network, reference, pairs, Unlearning(method, BETA, retain=RETAIN)).float()

    losses = {"sft": plain.mean_token_loss, "dpo": preference_loss}
    # Steps of one epoch do not reach into the next: filled up with nothing, all have as many places.
    places = math.ceil(num_rows / ROWS_PER_STEP) * ROWS_PER_STEP
    plain.train(
        network,
        [*rows, *([None] * (places - num_rows))] * EPOCHS,
        [],
        steps=EPOCHS * places // ROWS_PER_STEP,
        rows_per_step=ROWS_PER_STEP,
        lr=LR,
        weight_decay=0.0,
        max_norm=CLIP,
        eps=EPS,
        refresh_every=0,
        space="gradient",
        loss=_of_real_rows(losses.get(method, forgetting)),
    )
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def _of_real_rows(loss: plain.Loss) -> plain.Loss:
    return lambda network, rows: loss(network, [row for row in rows if row is not None])
