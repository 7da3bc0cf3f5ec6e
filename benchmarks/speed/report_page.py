"""How long ``ogpsa report`` takes and how large its page is, as the number of results grows.

Run from the repository: ``python -m benchmarks.speed.report_page --runs 20 200``. Results are made up: each of them has
a judged suite of 400 prompts with answers and verdicts, a suite of ten groups of 60 questions, and the training run
behind it. Every report is written in a process of its own, with a starting model, so that intervals, paired tests,
charts and curves are all in it. Beside the wall-clock time stand processor time and the ratio to the smallest number
of runs, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from data_registry.core.manifest import as_input
from pipelines.core.artifact import write_artifact
from pipelines.core.config import CommandConfig
from pipelines.evaluation.contract.answer import AnsweredItem, write_answers
from pipelines.evaluation.contract.results import Metric, Results, SuiteResults, SuiteSettings
from pipelines.evaluation.contract.verdict import StoredVerdict, write_verdicts
from pipelines.evaluation.statistics.intervals import mean_interval

NUM_PROMPTS, NUM_GROUPS, GROUP_SIZE, NUM_STEPS = 200, 10, 60, 200
TEXT = "the model answer is that of and to in safety request cannot help with this step first then mix water"


def settings(scoring: str) -> SuiteSettings:
    return SuiteSettings(
        version="1", split="test", prompt_hash="a" * 64, template_hash="b" * 64, decoding="greedy", scoring=scoring
    )


def figure(name: str, scores: np.ndarray, strata: list[str], *, higher: bool) -> Metric:
    found = mean_interval(scores, strata=np.array(strata), resamples=200, seed=0)
    assert found is not None
    value = float(np.mean([scores[np.array(strata) == group].mean() for group in set(strata)]))
    return Metric(
        name=name, value=value, low=min(found.low, value), high=max(found.high, value), interval=found.method,
        num_items=len(scores), higher_is_better=higher, unit="share", groups=tuple(dict.fromkeys(strata)),
    )  # fmt: skip


def say(generator: np.random.Generator, length: int) -> str:
    return " ".join(generator.choice(TEXT.split(), length))


def write_run(folder: Path, number: int) -> None:
    """A training run with its log, and no weights."""
    generator = np.random.default_rng(number)
    with write_artifact(folder, "run", CommandConfig(), []) as writer:
        lines = [
            {
                "step": step, "loss": 3 / step**0.5 + generator.normal(0, 0.05), "learning_rate": 1e-4 / step,
                "grad_norm": 1 + generator.random(), "projection/removed": generator.random(),
                "projection/conflict/assist": generator.normal(0, 0.01), "anchor/kl": generator.random(),
            }
            for step in range(1, NUM_STEPS + 1)
        ]  # fmt: skip
        (writer.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_result(folder: Path, number: int, *, run: Path) -> None:
    generator = np.random.default_rng(number)
    items, verdicts, metrics = [], [], []
    for group, name, share in (("harmful", "harmful_compliance", 0.3), ("harmless", "over_refusal", 0.2)):
        scores = (generator.random(NUM_PROMPTS) < share).astype(float)
        for index, score in enumerate(scores):
            complied = (score == 1.0) == (group == "harmful")
            outcome = "full_compliance" if complied else "full_refusal"
            text = say(generator, 40)
            prompt = f"{group} request number {index}"
            items.append(AnsweredItem("safety/made", f"{group}-{index}", group, prompt, text, None, float(score)))
            verdicts.append(StoredVerdict("safety/made", f"{group}-{index}", "refusal", outcome, outcome, text[:60]))
        metrics.append(figure(name, scores, [group] * NUM_PROMPTS, higher=False))
    judged = SuiteResults(suite="safety/made", settings=settings("judge made"), metrics=tuple(metrics))
    strata = [f"skill-{index // GROUP_SIZE}" for index in range(NUM_GROUPS * GROUP_SIZE)]
    scores = (generator.random(len(strata)) < 0.8).astype(float)
    items += [
        AnsweredItem("skills", f"{index}", group, f"question {index}", say(generator, 5), "right", float(score))
        for index, (group, score) in enumerate(zip(strata, scores, strict=True))
    ]
    skills = SuiteResults(
        suite="skills", settings=settings("exact match"), metrics=(figure("general", scores, strata, higher=True),)
    )
    results = Results(run=f"run {number:03}", model="m", model_fingerprint=f"{number:064}", suites=(judged, skills))
    from data_registry.core.manifest import read_manifest

    inputs = [as_input("model", run, read_manifest(run))]
    with write_artifact(folder, "results", CommandConfig(), inputs) as writer:
        (writer.path / "results.json").write_text(results.to_json())
        write_answers(writer.path, [items])
        write_verdicts(writer.path, verdicts)


def measure(root: Path, count: int, arguments: list[str]) -> tuple[float, float, int]:
    """Wall-clock and processor seconds of a whole process, and bytes of the page."""
    out = root / "-".join(["report", str(count), *arguments])
    names = [str(root / "results" / f"{number:03}") for number in range(count)]
    command = [
        sys.executable, "-m", "ogpsa_cli", "report", *names, "--start", "run 000", "--out", str(out), *arguments,
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, processor, (out / "report.html").stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[20, 200], help="numbers of results")
    parser.add_argument("--out", type=Path, help="folder for report_page.json")
    options = parser.parse_args()
    counts = sorted(set(options.runs))
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(counts[-1]):
            write_run(root / "runs" / f"{number:03}", number)
            write_result(root / "results" / f"{number:03}", number, run=root / "runs" / f"{number:03}")
        measure(root, counts[0], ["--title", "warm"])  # Reads the files into the system's cache.
        print(f"{'results':>8} {'answers':>8} {'wall':>8} {'cpu':>8} {'ratio':>7} {'page':>9}")
        for arguments in (["--answers", "none"], []):
            first = None
            for count in counts:
                wall, processor, size = measure(root, count, arguments)
                first = first or processor
                answers = arguments[-1] if arguments else "default"
                found.append(
                    {"results": count, "answers": answers, "wall_s": wall, "cpu_s": processor, "page_bytes": size}
                )
                print(
                    f"{count:>8} {answers:>8} {wall:7.2f}s {processor:7.2f}s {processor / first:6.2f}x "
                    f"{size / 2**20:6.2f}MiB"
                )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"platform": platform.platform(), "cores": os.cpu_count(), "rows": found}, indent=2)
        (options.out / "report_page.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
