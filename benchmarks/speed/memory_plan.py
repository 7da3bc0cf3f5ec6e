"""The memory that ``--dry-run`` foretells, held against what small trainings on a CPU hold at most.

    python -m benchmarks.speed.memory_plan --out benchmarks/speed/results

Every configuration trains in processes of its own, through the recipes, on a Llama of 34 M parameters. What is alive is
counted in two ways, from before the model is loaded on: as operations make tensors and as the last reference to them
goes (:class:`pipelines.memory.live.LiveBytes`), and by torch's allocator. Where ranks communicate both can count too
much, the first what DeepSpeed empties in place, the second what other threads give back; the smaller is compared.

``--table`` trains nothing, and prints what models of 0.5 B to 70 B would hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench import line as lines
from benchmarks.speed.dpo_memory import make_world

SHAPE = (8192, 512, 8)
TOKENS, STEPS = 256, 2
COMMON: dict[str, Any] = {"precision": "fp32", "batch_size": 2, "accumulation": 2}
# A buffer of half a billion elements would hide what is to be measured; none is smaller than the largest tensor.
BUCKET = 5_000_000
UPDATE: dict[str, Any] = {"basis": True, "space": "update", "refresh_every": 0, "log_every": 50}
CONFIGURATIONS: dict[str, tuple[int, dict[str, Any]]] = {
    # name: (processes, options)
    "full, no DeepSpeed": (1, {}),
    "full, checkpointing": (1, {"gradient_checkpointing": True}),
    "full, bf16 arithmetic": (1, {"precision": "bf16"}),
    "LoRA of rank 16": (1, {"lora_rank": 16}),
    "gradient space, refresh": (1, {"basis": True, "space": "gradient", "refresh_every": 1}),
    "update space": (1, UPDATE),
    "DPO": (1, {"command": "train-dpo", "batch_size": 1}),
    "anchor by cross-entropy": (1, {"anchor": "sft", "anchor_kind": "ce", "anchor_ratio": 0.5, "batch_size": 1}),
    "anchor by divergence": (1, {"anchor": "samples", "anchor_kind": "kl", "anchor_ratio": 0.5, "batch_size": 1}),
    "anchor by states": (1, {"anchor": "sft", "anchor_kind": "hidden", "anchor_ratio": 0.5, "batch_size": 1}),
    "ZeRO 0, bf16": (2, {"stage": 0, "precision": "bf16", "batch_size": 1}),
    "ZeRO 2, bf16": (2, {"stage": 2, "precision": "bf16", "batch_size": 1}),
    "ZeRO 3, bf16": (2, {"stage": 3, "precision": "bf16", "batch_size": 1}),
    "ZeRO 2, bf16, update space": (
        2,
        {"stage": 2, "precision": "bf16", "batch_size": 1, **UPDATE},
    ),
    "ZeRO 3, bf16, update space": (
        2,
        {"stage": 3, "precision": "bf16", "batch_size": 1, **UPDATE},
    ),
}  # fmt: skip


def configured(world: Path, name: str) -> Any:
    """The command's configuration."""
    from pipelines.configs.train import TrainDpoConfig, TrainSftConfig

    options = {**COMMON, **CONFIGURATIONS[name][1]}
    is_dpo = options.pop("command", "train-sft") == "train-dpo"
    stage = options.pop("stage", None)
    if stage is not None:
        bf16 = options["precision"] == "bf16"
        values: dict[str, Any] = {
            "zero_optimization": {"stage": stage, "reduce_bucket_size": BUCKET, "allgather_bucket_size": BUCKET},
            "bf16": {"enabled": bf16},
        }
        if bf16 and stage in (2, 3):
            values["data_types"] = {"grad_accum_dtype": "fp32"}
        options["deepspeed"] = world / f"{name.replace(' ', '-')}.json"
        options["deepspeed"].write_text(json.dumps(values))
    if options.pop("basis", False):
        options["basis"] = world / "basis"
    if "anchor" in options:
        options["anchor"] = [world / options["anchor"]]
    out = Path(tempfile.mkdtemp(dir=world)) / "run"
    options |= {"model": str(world / "model"), "out": out, "max_steps": STEPS, "max_length": TOKENS}
    return (TrainDpoConfig if is_dpo else TrainSftConfig)(data=world / ("pairs" if is_dpo else "sft"), **options)


def child(world: Path, name: str) -> None:
    """Train in this process, and print estimate and measured peak."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from pipelines.core.job import rank, world_size
    from pipelines.engine import processes
    from pipelines.engine.deepspeed_config import deepspeed_config
    from pipelines.memory.estimate import CONTEXT_BYTES
    from pipelines.memory.live import LiveBytes
    from pipelines.models.reference import resolve_model
    from pipelines.training import dpo, sft
    from pipelines.training.plan import memory_planner

    device = processes.start()
    torch.set_num_threads(1)
    config = configured(world, name)
    config.out.mkdir(parents=True, exist_ok=True)
    ds_config = deepspeed_config(config, on_cpu=True)
    if ds_config is not None:
        processes.start_deepspeed()
    source = resolve_model(config.model)
    on_gpu = device.type == "cuda"
    estimate = memory_planner(config, source).estimate(world_size(), on_accelerator=on_gpu)
    recipe: Any = dpo if type(config).__name__ == "TrainDpoConfig" else sft
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        recipe.make_trainer(config, source, ds_config, config.out, device).train()
        peak = torch.cuda.max_memory_allocated()
        # The allocator does not count what CUDA itself and its libraries take.
        found = {"estimate": estimate.device - CONTEXT_BYTES, "measured": peak, "by_allocator": peak}
        if rank() == 0:
            print(json.dumps({**found, "fullest": estimate.fullest}))
        return
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled, LiveBytes() as live:
        trainer = recipe.make_trainer(config, source, ds_config, config.out, device)
        trainer.train()
    if rank() == 0:
        terms = [(term.name, term.part, term.device) for term in estimate.terms]
        print(
            json.dumps(
                {
                    "estimate": estimate.device, "measured": min(live.peak, _allocated(profiled)),
                    "by_tensors": live.peak, "by_allocator": _allocated(profiled), "fullest": estimate.fullest,
                    "terms": terms,
                }
            )
        )  # fmt: skip


def _allocated(profiled: Any) -> int:
    """The peak by torch's allocator."""
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def measured(world: Path, name: str) -> dict[str, Any]:
    """Run a configuration in processes of its own."""
    num_procs = CONFIGURATIONS[name][0]
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_procs)] if num_procs > 1 else []
    line = [sys.executable, *start, "-m", "benchmarks.speed.memory_plan", "--child", name, "--world", str(world)]
    run = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    found = [text for text in run.stdout.splitlines() if text.startswith('{"estimate"')]
    if run.returncode or not found:
        raise RuntimeError(f"{name} failed:\n{run.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(found[-1])
    return {"name": name, "processes": num_procs, **result}


def build_basis(world: Path) -> None:
    from pipelines.commands import build_basis as command
    from pipelines.configs.build_basis import BuildBasisConfig

    command.run(
        BuildBasisConfig(
            model=str(world / "model"), reference=[world / "sft"], num_samples=4, batch_size=2, max_length=TOKENS,
            precision="fp32", out=world / "basis",
        )
    )  # fmt: skip


def make_samples(world: Path) -> None:
    """The model's own answers, each as long as the rows of the data."""
    from pipelines.commands import sample as command
    from pipelines.configs.sample import SampleConfig

    command.run(
        SampleConfig(
            model=str(world / "model"), data=world / "sft", num_samples=8, max_new_tokens=TOKENS // 2 - 8,
            log_probs=64, batch_size=8, num_procs=1, out=world / "samples",
        )
    )  # fmt: skip


MODELS = {
    # name: (hidden, inner, layers, heads, key and value heads, vocabulary, tied): published configurations
    "0.5 B (Qwen2.5)": (896, 4864, 24, 14, 2, 151936, True),
    "1.5 B (Qwen2.5)": (1536, 8960, 28, 12, 2, 151936, True),
    "7 B (Qwen2.5)": (3584, 18944, 28, 28, 4, 152064, False),
    "14 B (Qwen2.5)": (5120, 13824, 48, 40, 8, 152064, False),
    "32 B (Qwen2.5)": (5120, 27648, 64, 40, 8, 152064, False),
    "70 B (Llama 3)": (8192, 28672, 80, 64, 8, 128256, False),
}


def table(work: Path) -> None:
    """Print what models hold: one row of 2,048 tokens, checkpointing, bf16, two rows of a basis, update space."""
    from pipelines.configs.train import TrainSftConfig
    from pipelines.memory.estimate import Edits
    from pipelines.memory.planning import Planner, Work
    from pipelines.memory.shape import shape_of
    from pipelines.models.reference import resolve_model

    print("| model | parameters | ZeRO 2, 8 GPUs | ZeRO 3, 8 | ZeRO 3, 64 | ZeRO 3, 256 | smallest cluster of 80 GiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (hidden, inner, layers, heads, groups, vocabulary, tied) in MODELS.items():
        directory = work / name.split(" ")[0]
        directory.mkdir()
        is_llama = "Llama" in name
        values = {
            "architectures": ["LlamaForCausalLM" if is_llama else "Qwen2ForCausalLM"],
            "model_type": "llama" if is_llama else "qwen2",
            "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": groups, "vocab_size": vocabulary,
            "tie_word_embeddings": tied, "max_position_embeddings": 8192,
        }  # fmt: skip
        (directory / "config.json").write_text(json.dumps(values))
        source = resolve_model(str(directory))
        number = shape_of(directory).num_parameters
        edits = Edits(rows=2, row_elements=number, keeps=True)
        work_done = Work(edits, (1, 2048), (1, 2048))
        cells = []
        for stage, ranks in ((2, 8), (3, 8), (3, 64), (3, 256)):
            config = TrainSftConfig(
                model=str(directory), data=[Path("d")], out=Path("o"), zero=stage, gradient_checkpointing=True
            )  # fmt: skip
            planner = Planner(config, source, work_done)
            cells.append(f"{planner.estimate(ranks).device / 2**30:,.1f}")
        assert planner.counts_activations, name
        print(f"| {name} | {number:,} | {' | '.join(cells)} | {planner.smallest(80.0)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=list(CONFIGURATIONS), default=list(CONFIGURATIONS), help="names of configurations"
    )
    parser.add_argument("--table", action="store_true", help="print what models of 0.5 B to 70 B would hold")
    parser.add_argument("--out", type=Path, default=None, help="directory for the raw results")
    parser.add_argument("--child", choices=list(CONFIGURATIONS), default=None, help=argparse.SUPPRESS)
    parser.add_argument("--world", type=Path, default=None, help=argparse.SUPPRESS)
    lines.add_option(parser)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(arguments.world, arguments.child)
        return
    with tempfile.TemporaryDirectory() as directory:
        if arguments.table:
            table(Path(directory))
            return
        make_world(Path(directory), SHAPE, TOKENS, STEPS * 8)
        build_basis(Path(directory))
        make_samples(Path(directory))
        results = []
        print("| configuration | estimate, MiB | measured, MiB | ratio |\n| --- | --- | --- | --- |")
        for name in arguments.only:
            result = measured(Path(directory), name)
            results.append(result)
            ratio = result["estimate"] / result["measured"]
            print(
                f"| {name} | {result['estimate'] / 2**20:.1f} | {result['measured'] / 2**20:.1f} | {ratio:.3f} |",
                flush=True,
            )
            if arguments.out is not None:
                _write(arguments.out, results)
        lines.write(arguments.lines, [table_line(result) for result in results])


def table_line(result: dict[str, Any]) -> lines.Line:
    """The measured peak of a configuration beside the planned one."""
    measured, planned = (result[name] / 2**20 for name in ("measured", "estimate"))
    return lines.line(
        f"memory, {result['name']}", "peak", "MiB", [measured], floor=lines.Beside("as planned", [planned])
    )


def _write(out: Path, results: list[dict[str, Any]]) -> None:
    from pipelines.core.environment import package_versions

    date = datetime.now(UTC).date().isoformat()
    record = {
        "date": date,
        "command": "python -m benchmarks.speed.memory_plan",
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()},
        "packages": package_versions(),
        "shape": dict(zip(("vocabulary", "hidden", "layers"), SHAPE, strict=True)),
        "tokens": TOKENS,
        "results": results,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"memory_plan-{date}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
