"""What LoRA keeps in memory from step to step (docs/recipes.md), calculated, and counted on a small Llama on the CPU.

    python -m benchmarks.speed.lora_memory

One process, ZeRO 2, bf16, gradient checkpointing, update space, two rows of basis, as in the recipe ``lora-24gb``.
Activations and buffers that come and go are not counted here.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.bench import line as lines
from benchmarks.speed.dpo_memory import make_world

HIDDEN, LAYERS, VOCABULARY, RANK = 256, 12, 8192, 16
INNER = HIDDEN * 11 // 4


def calculated() -> dict[str, float]:
    """Bytes of each term; see the table of docs/recipes.md."""
    frozen = 2 * VOCABULARY * HIDDEN + LAYERS * (4 * HIDDEN**2 + 3 * HIDDEN * INNER)
    adapters = LAYERS * RANK * (4 * 2 * HIDDEN + 3 * (HIDDEN + INNER))
    return {
        "frozen weights": 2.0 * frozen,
        "adapters: weights": 2.0 * adapters,
        "adapters: master weights": 4.0 * adapters,
        "adapters: AdamW": 8.0 * adapters,
        "rows of the basis": 4.0 * 2 * adapters,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    lines.add_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        measured = counted(Path(directory), arguments.tokens)
    for name, value in calculated().items():
        print(f"{name:28s} {value / 2**20:8.2f} MiB calculated {measured[name] / 2**20:8.2f} MiB counted")
    found = [
        lines.line(
            f"LoRA: {name}", "kept memory", "MiB", [measured[name] / 2**20],
            floor=lines.Beside("calculated", [value / 2**20]),
        )
        for name, value in calculated().items()
    ]  # fmt: skip
    lines.write(arguments.lines, found)


def counted(directory: Path, tokens: int) -> dict[str, float]:
    from pipelines.commands import build_basis
    from pipelines.configs.build_basis import BuildBasisConfig
    from pipelines.configs.train import TrainSftConfig
    from pipelines.engine import processes
    from pipelines.engine.deepspeed_config import deepspeed_config
    from pipelines.models.reference import resolve_model
    from pipelines.training import sft

    device = processes.start()
    processes.start_deepspeed()
    make_world(directory, (VOCABULARY, HIDDEN, LAYERS), tokens, rows=4)
    common: dict[str, Any] = {"model": str(directory / "model"), "zero": 2, "lora_rank": RANK, "batch_size": 1}
    common |= {"max_length": tokens, "gradient_checkpointing": True}
    references = [directory / "sft", directory / "pairs-as-sft"]
    _second_reference(directory)
    build_basis.run(BuildBasisConfig(reference=references, num_samples=2, out=directory / "basis", **common))
    config = TrainSftConfig(
        data=directory / "sft", basis=directory / "basis", space="update", max_steps=3, accumulation=2,
        out=directory / "run", **common,
    )  # fmt: skip
    config.out.mkdir()
    values = deepspeed_config(config, on_cpu=True)
    trainer = sft.make_trainer(config, resolve_model(config.model), values, config.out, device)
    trainer.train()
    model, _, optimizer = trainer.prepared_engine()
    state = [value for entry in optimizer.state.values() for value in entry.values() if value.numel() > 1]
    masters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert trainer.transforms is not None
    return {
        "frozen weights": _bytes(p for p in model.parameters() if not p.requires_grad),
        "adapters: weights": _bytes(p for p in model.parameters() if p.requires_grad),
        "adapters: master weights": _bytes(masters),
        "adapters: AdamW": _bytes(state),
        "rows of the basis": _bytes(trainer.transforms.get("projection").projector.rows),
    }


def _second_reference(directory: Path) -> None:
    from pipelines.commands import prepare_data
    from pipelines.configs.prepare_data import PrepareDataConfig

    source = str(directory / "pairs.jsonl")
    prepare_data.run(PrepareDataConfig(source=source, task="sft", out=directory / "pairs-as-sft"))


def _bytes(tensors: Any) -> float:
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))


if __name__ == "__main__":
    main()
