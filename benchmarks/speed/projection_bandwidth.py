"""Projection alone on the shapes of real models, with random weights, beside the bandwidth at which the device copies.

    python -m benchmarks.speed.projection_bandwidth --shapes 0.5B 1.5B 3B      # on a GPU
    python -m benchmarks.speed.projection_bandwidth --shapes 30M               # on a processor

One process holds float32 weights, gradients and two rows of a basis, and nothing is trained: the work of a step is done
by the chain of transforms as in training. ``gradient`` projects the gradient; ``update`` copies the weights before the
optimizer's step and projects the difference after it.

The floor is the least traffic at the bandwidth of a copy, which is measured in the same rounds. With k rows in float32,
gradient space reads the gradient and the rows twice and writes the gradient: 4 (2 (k + 1) + 1) bytes an element.
Update space copies the weights, reads both and the rows, then the rows and the weights again, and writes the weights:
4 (2 + (k + 2) + (k + 1) + 1) bytes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.bench import line as lines
from pipelines.engine import processes
from pipelines.engine.shards.opening import open_shards
from pipelines.transforms.chain import TransformChain
from pipelines.transforms.projection import Projection, ProjectionSettings

ROWS = 2
# name: vocabulary, hidden size, feed-forward size, layers, heads, heads of keys and values, embeddings tied
SHAPES: dict[str, tuple[int, int, int, int, int, int, bool]] = {
    "tiny": (512, 64, 176, 2, 4, 4, False),
    "30M": (8192, 512, 1408, 7, 8, 8, False),
    "0.5B": (151936, 896, 4864, 24, 14, 2, True),
    "1.5B": (151936, 1536, 8960, 28, 12, 2, True),
    "3B": (151936, 2048, 11008, 36, 16, 2, True),
}
# Weights, gradients, the copy of the weights and the rows.
BYTES_AN_ELEMENT = 4 * (3 + ROWS)


def make_model(shape: str, device: torch.device) -> nn.Module:
    """A Llama of that shape with random weights and gradients, made on the device."""
    vocabulary, hidden, ffn, layers, heads, kv_heads, tied = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to_empty(device=device)
    # What was one tensor is two after that.
    model.tie_weights()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
            parameter.grad = torch.randn_like(parameter)
    return model


def num_elements(shape: str) -> int:
    """Parameters of a shape, counted without memory."""
    return sum(parameter.numel() for parameter in make_model(shape, torch.device("meta")).parameters())


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU; None on a processor."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """How long something takes on the device."""
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Bench:
    """Random weights, gradients and rows, and the chains that work on them."""

    def __init__(self, shape: str, device: torch.device) -> None:
        self.device = device
        self.model = make_model(shape, device)
        access = open_shards(self.model)
        rows = [torch.randn(ROWS, shard.numel, device=device) for shard in access.shards]
        self.elements = sum(access.numels)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0)
        self.chains: dict[str, TransformChain] = {}
        for space in ("gradient", "update"):
            settings = ProjectionSettings(space, 0, False, 1.0)  # type: ignore[arg-type]
            chain = TransformChain(access, self.optimizer, [Projection(settings, access, rows, [], _no_loss)])
            chain.close()
            chain._reach_test = None
            self.chains[space] = chain
        size = min(self.elements, 1 << 28)
        self.copied = torch.randn(size, device=device), torch.empty(size, device=device)

    def gradient(self) -> None:
        self.chains["gradient"].at_boundary(measured=False)

    def update(self) -> None:
        chain = self.chains["update"]
        chain.at_boundary(measured=False)
        with torch.no_grad():
            chain._before_optimizer(self.optimizer, (), {})
            chain._after_optimizer(self.optimizer, (), {})
        chain.end_step()

    def bandwidth(self) -> float:
        """Bytes a second of a copy, counted as read and as written."""
        source, target = self.copied
        return 2 * 4 * source.numel() / seconds(lambda: target.copy_(source), self.device)


def _no_loss(*arguments: Any) -> Any:
    raise AssertionError("nothing is refreshed here")


def measure(shape: str, device: torch.device, repeats: int) -> list[lines.Line]:
    bench = Bench(shape, device)
    traffic = {"gradient": 4 * (2 * (ROWS + 1) + 1), "update": 4 * (2 + (ROWS + 2) + (ROWS + 1) + 1)}
    found: dict[str, list[float]] = {"gradient": [], "update": []}
    floors: dict[str, list[float]] = {"gradient": [], "update": []}
    for repeat in range(repeats + 1):
        speed = bench.bandwidth()
        for space, work in (("gradient", bench.gradient), ("update", bench.update)):
            spent = seconds(work, device)
            if repeat > 0:
                found[space].append(1e3 * spent)
                floors[space].append(1e3 * traffic[space] * bench.elements / speed)
    name = f"{shape}, {ROWS} rows, fp32"
    return [
        lines.line(
            f"{space} space, {name}", "projection of a step", "ms", found[space],
            floor=lines.Beside(f"{traffic[space]} B an element at copy bandwidth", floors[space]),
        )
        for space in found
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["30M"])
    parser.add_argument("--repeats", type=int, default=9)
    lines.add_option(parser)
    arguments = parser.parse_args()
    device = processes.start()
    torch.set_num_threads(1)
    found: list[lines.Line] = []
    for shape in arguments.shapes:
        needed, free = BYTES_AN_ELEMENT * num_elements(shape), free_bytes(device)
        if free is not None and needed > 0.9 * free:
            print(f"{shape}: left out, needs {needed / 2**30:.0f} GiB of {free / 2**30:.0f} GiB")
            continue
        found += measure(shape, device, arguments.repeats)
        for each in found[-2:]:
            print(f"{each.name}: {each.ours:.2f} ms, {each.ratio:.2f} of the floor ({each.spread})")
        if device.type == "cuda":
            torch.cuda.empty_cache()
    lines.write(arguments.lines, found)


if __name__ == "__main__":
    main()
