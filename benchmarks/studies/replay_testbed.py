"""Replay beside projection on the embedded testbed, over several seeds of data order.

    python -m benchmarks.studies.replay_testbed --work DIR --out benchmarks/results

Model, data, basis and settings are the quickstart's; the seed is that of the order of samples in training. Interrupted,
it goes on from what lies in DIR.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from pipelines.commands import build_basis, evaluate, prepare_data, testbed, train_sft
from pipelines.configs.evaluate import EvaluateConfig
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.recipes import quickstart_steps

FIGURES = ("safe", "over_refusal", "general")


def variants(general: Path, basis: Path) -> dict[str, dict[str, Any]]:
    def replay(share: float) -> dict[str, Any]:
        return {"replay": general, "replay_ratio": share}

    projected = {"basis": basis, "refresh_every": 5}
    update = {**projected, "space": "update"}
    return {
        "naive": {},
        "projection, gradient space": {**projected, "space": "gradient"},
        "projection, update space": update,
        "replay, a tenth of the samples": replay(0.1),
        "replay, a quarter": replay(0.25),
        "replay, a half": replay(0.5),
        "update space and a tenth of replay": {**update, **replay(0.1)},
    }


def prepare(work: Path) -> Any:
    """Make model, data and basis as the quickstart does; its configuration of the naive run."""
    naive = None
    for step in quickstart_steps.steps(work, seed=0):
        config: Any = step.config
        if step.command == "testbed":
            testbed.run(config)
        elif step.command == "prepare-data":
            prepare_data.run(config)
        elif step.command == "build-basis":
            build_basis.run(config)
        elif step.command == "train-sft" and naive is None:
            naive = config
    prepare_data.run(PrepareDataConfig(source="testbed-general", out=work / "data" / "general"))
    return naive


def score(work: Path, run: Path, name: str) -> dict[str, float]:
    config = EvaluateConfig(
        model=str(run), suite=["testbed"], name=name, out=work / "results" / run.name, batch_size=128
    )
    evaluate.run(config)
    results = json.loads((config.out / "results.json").read_text())
    figures = {metric["name"]: 100 * metric["value"] for suite in results["suites"] for metric in suite["metrics"]}
    return {figure: figures[figure] for figure in FIGURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="directory for models, data and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=None, help="directory for the raw results")
    arguments = parser.parse_args()
    naive = prepare(arguments.work)
    found: dict[str, dict[int, dict[str, float]]] = {}
    for seed in arguments.seeds:
        for number, (name, options) in enumerate(
            variants(arguments.work / "data" / "general", arguments.work / "basis").items()
        ):
            out = arguments.work / "runs" / f"{number}-{seed}"
            config = type(naive)(**{**naive.model_dump(), "seed": seed, "out": out, **options})
            train_sft.run(config)
            found.setdefault(name, {})[seed] = score(arguments.work, out, f"{name}, seed {seed}")
            print(name, seed, {key: round(value, 1) for key, value in found[name][seed].items()}, flush=True)
    for name, by_seed in found.items():
        cells = []
        for figure in FIGURES:
            values = [figures[figure] for figures in by_seed.values()]
            cells.append(f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        print(f"| {name} | {' | '.join(cells)} |")
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        paths = {"model", "data", "out"}
        record = {"settings": naive.model_dump(mode="json", exclude=paths), "per cent": found}
        (arguments.out / "replay_testbed.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
