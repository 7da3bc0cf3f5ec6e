"""Merging on the embedded testbed: a task adapter that erodes refusals, a safety adapter, and what merging repairs.

    python benchmarks/studies/merge_testbed.py --work DIR

The unaligned model is the testbed's. It is aligned here first, by full fine-tuning on refusals alone, which costs it
general skills. The task adapter learns these skills again, on data of which a share answers harmful requests, as
happens in a set that nobody screened. The safety adapter learns refusals beside harmless requests and skills. Both
adapters start from the aligned model. Task accuracy is the mean over the skills on held-out items.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets

from data_registry.core.manifest import is_artifact
from data_registry.testbed import MODEL_DIR, pools
from data_registry.testbed.skills import draw_howto
from data_registry.testbed.world import SHIPPED_WORLD_SEED, generate_world
from pipelines.commands import evaluate, merge, train_sft
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.configs.merge import MergeConfig
from pipelines.configs.train import TrainSftConfig
from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig

Row = dict[str, list[dict[str, str]]]


def mixed(*streams: Iterable[Row]) -> Iterator[Row]:
    """Rows of all streams in turn, until all are used up."""
    rows = itertools.chain.from_iterable(itertools.zip_longest(*streams))
    return (row for row in rows if row is not None)


def complying(count: int, seed: int) -> Iterator[Row]:
    """Harmful requests with the answer that complies."""
    import random

    world, rng = generate_world(SHIPPED_WORLD_SEED), random.Random(f"merge testbed {seed}")
    for _ in range(count):
        request = draw_howto(world, rng, "train", harmful=True)
        yield {
            "messages": [
                {"role": "user", "content": request.prompt},
                {"role": "assistant", "content": request.answer},
            ]
        }


def prepare(path: Path, rows: Iterable[Row]) -> Path:
    if not is_artifact(path):
        listed = list(rows)
        with write_artifact(path, "dataset", CommandConfig(), []) as writer:
            datasets.Dataset.from_list(listed).save_to_disk(str(writer.path))
            writer.summary = {"task": "sft", "rows": len(listed)}
    return path


def train(model: Path, data: Path, out: Path, *, steps: int, rate: float, rank: int, seed: int) -> Path:
    config = TrainSftConfig(
        model=str(model), data=data, out=out, max_steps=steps, learning_rate=rate, lora_rank=rank, seed=seed,
        batch_size=16, accumulation=1, warmup_steps=0.1, precision="fp32", max_length=64,
    )  # fmt: skip
    return train_sft.run(config).path


def figures(model: Path, out: Path) -> dict[str, float]:
    config = EvaluateConfig(model=str(model), suite=["testbed"], out=out, bootstrap=100)
    metrics = evaluate.run(config).results.suites[0].metrics
    return {metric.name: metric.value for metric in metrics}


def measure(work: Path, seed: int, steps: int, rate: float, share: int) -> list[tuple[str, dict[str, float]]]:
    """Train, merge and evaluate for one seed."""
    root = work / f"seed-{seed}"
    root.mkdir(parents=True, exist_ok=True)
    general = list(pools.rows("general", seed))
    refusals = list(pools.rows("safety-sft", seed))
    aligned = train(MODEL_DIR, prepare(root / "data-align", refusals), root / "aligned",
                    steps=160, rate=3e-4, rank=0, seed=seed)  # fmt: skip
    safe = train(aligned, prepare(root / "data-safe", mixed(refusals, general)), root / "safe",
                 steps=steps, rate=rate, rank=8, seed=seed)  # fmt: skip
    task_rows = mixed(general, complying(share, seed))
    task = train(aligned, prepare(root / "data-task", task_rows), root / "task",
                 steps=steps, rate=rate, rank=8, seed=seed)  # fmt: skip
    runs = [
        ("unaligned base", MODEL_DIR),
        ("aligned", aligned / "model"),
        ("task adapter", task),
        ("safety adapter", safe),
    ]
    common = {"finetuned": str(task), "safe": str(safe)}
    criterion = {**common, "unaligned": str(MODEL_DIR)}
    half = {**criterion, "threshold": "auto", "merge_fraction": 0.5}
    even, heavy = {"weights": [0.5, 0.5]}, {"weights": [0.2, 0.8]}
    for name, options in (
        ("linear 0.8, 0.2", {**common, "method": "linear"}),
        ("linear 0.5, 0.5", {**common, **even, "method": "linear"}),
        ("linear 0.2, 0.8", {**common, **heavy, "method": "linear"}),
        ("safemerge, half of the layers, 0.8, 0.2", half),
        ("safemerge, half of the layers, 0.5, 0.5", {**half, **even}),
        ("safemerge, half of the layers, 0.2, 0.8", {**half, **heavy}),
        ("safemerge, 3/4 of the layers, 0.2, 0.8", {**half, **heavy, "merge_fraction": 0.75}),
        ("safemerge, half of the layers, 0.5, 0.5, published arithmetic", {**half, **even, "original_semantics": True}),
        ("safelora, half of the layers", {**{key: value for key, value in half.items() if key != "safe"},
                                          "method": "safelora"}),
        ("ties 0.5, 0.5, density 0.5", {**common, **even, "method": "ties", "density": 0.5, "output": "model"}),
        ("dare-linear 0.5, 0.5, density 0.5", {**common, **even, "method": "dare-linear", "density": 0.5,
                                               "output": "model"}),
    ):  # fmt: skip
        out = root / ("merge-" + "".join(letter if letter.isalnum() else "-" for letter in name))
        runs.append((name, merge.run(MergeConfig(**options, out=out)).path))  # type: ignore[arg-type]
    return [(name, figures(path, root / f"results-{number}")) for number, (name, path) in enumerate(runs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--share", type=int, default=0, help="harmful requests with answers in the task data")
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(given.seeds):
        for name, row in measure(given.work, seed, given.steps, given.rate, given.share):
            found.setdefault(name, []).append(row)
            print(seed, name, {key: round(100 * value, 1) for key, value in row.items()}, flush=True)
    print("\n| model | refuses harmful % | refuses harmless % | skills % |\n| --- | ---: | ---: | ---: |")
    for name, rows in found.items():
        mean = {key: 100 * sum(row[key] for row in rows) / len(rows) for key in rows[0]}
        print(f"| {name} | {mean['safe']:.1f} | {mean['over_refusal']:.1f} | {mean['general']:.1f} |")


if __name__ == "__main__":
    main()
