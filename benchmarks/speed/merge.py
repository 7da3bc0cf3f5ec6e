"""Time and peak memory of a SafeMERGE merge, beside a straightforward implementation, on checkpoints of real shape.

    python -m benchmarks.speed.merge --out RESULTS.json

Every measurement is a process of its own, on files in the page cache; the two implementations take turns. Time runs
from opening the inputs to the adapter on disk, imports left out. Memory is the growth of the process's peak over what
it had before that.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.bench import line as lines


@dataclass(frozen=True)
class Case:
    """A shape of checkpoint: hidden size, feed-forward size, layers, LoRA rank, targets, dtype of the weights."""

    hidden: int
    ffn: int
    layers: int
    rank: int
    targets: str
    dtype: str

    @property
    def name(self) -> str:
        return f"d={self.hidden} {self.targets} r={self.rank} {self.dtype}"

    def shapes(self) -> dict[str, tuple[int, int]]:
        parts = {"self_attn.q_proj": (self.hidden, self.hidden), "self_attn.v_proj": (self.hidden, self.hidden)}
        if self.targets == "all-linear":
            parts |= {f"self_attn.{name}_proj": (self.hidden, self.hidden) for name in "ko"}
            parts |= {f"mlp.{name}_proj": (self.ffn, self.hidden) for name in ("gate", "up")}
            parts |= {"mlp.down_proj": (self.hidden, self.ffn)}
        return {f"model.layers.{i}.{name}": shape for i in range(self.layers) for name, shape in parts.items()}


CASES = (
    Case(2048, 5504, 4, 8, "q/v", "float32"),
    Case(4096, 11008, 3, 16, "q/v", "float32"),
    Case(4096, 11008, 3, 16, "q/v", "bfloat16"),
    Case(4096, 11008, 3, 64, "q/v", "float32"),
    Case(4096, 11008, 1, 16, "all-linear", "float32"),
    # To see that all works.
    Case(256, 704, 1, 8, "q/v", "float32"),
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build(case: Case, root: Path) -> int:
    """Write the inputs and return the size of the largest tensor in bytes."""
    largest = 0
    for seed, name in enumerate(("aligned", "unaligned")):
        torch.manual_seed(seed)
        (root / name).mkdir(parents=True)
        weights = {f"{path}.weight": 0.02 * torch.randn(shape) for path, shape in case.shapes().items()}
        weights = {path: weight.to(DTYPES[case.dtype]) for path, weight in weights.items()}
        largest = max(weight.numel() * weight.element_size() for weight in weights.values())
        save_file(weights, root / name / "model.safetensors", metadata={"format": "pt"})
        (root / name / "config.json").write_text(json.dumps({"model_type": "llama"}))
    for seed, name in enumerate(("task", "safe")):
        torch.manual_seed(10 + seed)
        factors = {}
        for path, (out, width) in case.shapes().items():
            factors[f"base_model.model.{path}.lora_A.weight"] = torch.randn(case.rank, width) / width**0.5
            factors[f"base_model.model.{path}.lora_B.weight"] = 0.01 * torch.randn(out, case.rank)
        (root / name).mkdir()
        save_file(factors, root / name / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {"peft_type": "LORA", "r": case.rank, "lora_alpha": 2 * case.rank, "target_modules": ["q_proj"],
                  "base_model_name_or_path": str(root / "aligned")}  # fmt: skip
        (root / name / "adapter_config.json").write_text(json.dumps(config))
    return largest


# --- The two implementations ---------------------------------------------------------------------------------------


def straightforward(root: Path, out: Path) -> list[float]:
    """Merge as the published script does: whole models in memory in float32, C and D formed, factors added."""
    aligned, unaligned = (
        {name: weight.float() for name, weight in load_file(root / part / "model.safetensors").items()}
        for part in ("aligned", "unaligned")
    )
    task, safe = (load_file(root / part / "adapter_model.safetensors") for part in ("task", "safe"))
    projectors = {}
    for name in aligned:
        V = aligned[name] - unaligned[name]
        projectors[name] = torch.mm(V, V.t()) / torch.norm(V)
    rhos, merged = [], {}
    for name, C in sorted(projectors.items()):
        path = f"base_model.model.{name.removesuffix('.weight')}"
        A, B = task[f"{path}.lora_A.weight"], task[f"{path}.lora_B.weight"]
        projected, change = torch.mm(torch.mm(C, B), A), torch.mm(B, A)
        rho = torch.nn.functional.cosine_similarity(projected.view(1, -1), change.view(1, -1)).item()
        rhos.append(rho)
        shares = (0.8, 0.2) if rho < 0.35 else (1.0, 0.0)
        for side in ("A", "B"):
            key = f"{path}.lora_{side}.weight"
            merged[key] = sum((2 * share) ** 0.5 * part[key] for share, part in zip(shares, (task, safe), strict=True))
    save_file(merged, out / "adapter_model.safetensors")
    return rhos


def streamed(root: Path, out: Path) -> list[float]:
    """Merge with our implementation, with exact sums by concatenation."""
    from pipelines.configs.merge_methods import METHODS
    from pipelines.merging.opened import open_inputs
    from pipelines.merging.rule import Rule
    from pipelines.merging.sources import Sources
    from pipelines.merging.target import Target
    from pipelines.models.reference import resolve_model

    aligned, unaligned = resolve_model(str(root / "aligned")), resolve_model(str(root / "unaligned"))
    task, safe = (resolve_model(str(root / part), base=aligned) for part in ("task", "safe"))
    opened = open_inputs(
        Sources(task, safe, aligned, aligned, unaligned), Rule(METHODS["linear"], (0.8, 0.2), 1.0, 0),
        into_model=False, max_rank=None, max_shard_bytes=10**9, allow_unpaired=False, workers=2,
    )  # fmt: skip
    target = Target(0.35, out)
    opened.write([target])
    return [record.rho for record in target.records if record.rho is not None]


def measure(which: str, root: Path, threads: int) -> None:
    """Run one implementation, in a process of its own, and print times, memory and cosines."""
    import safetensors  # noqa: F401

    import pipelines.merging.opened  # noqa: F401
    from pipelines.models.architecture import architecture_of

    # A merge asks for the names of the model's weights, and transformers is imported for that.
    if architecture_of(root / "aligned", ()) is None:
        raise SystemExit("transformers cannot build the model of this case")

    torch.set_num_threads(threads)
    torch.mm(torch.randn(64, 64), torch.randn(64, 64))
    before = reset_peak()
    with tempfile.TemporaryDirectory(dir=root) as out:
        start = time.perf_counter()
        cpu = time.process_time()
        rhos = {"ours": streamed, "plain": straightforward}[which](root, Path(out))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"s": seconds, "cpu_s": cpu, "mib": (status("VmHWM") - before) / 1024, "rhos": rhos}))


def status(name: str) -> int:
    """A memory figure of this process in KiB, as the kernel counts it; it includes the pages of mapped files."""
    return int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)).split()[1]
    )


def reset_peak() -> int:
    """Reset the peak, which the imports have raised, and return the memory now in use in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def compare(case: Case, rounds: int, threads: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        largest = build(case, root) / 2**20
        found: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
        for _ in range(rounds):
            for which in found:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.speed.merge",
                    "--measure",
                    which,
                    "--root",
                    folder,
                    "--threads",
                    str(threads),
                ]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[which].append(json.loads(output.splitlines()[-1]))
        exact = float64(root)
    row: dict[str, Any] = {"case": case.name, "matrices": len(case.shapes()), "largest_mib": largest}
    for which, runs in found.items():
        cosines = dict(zip(exact, runs[0]["rhos"], strict=True))
        row[f"{which}_error"] = max(abs(cosines[name] - rho) / rho for name, rho in exact.items())
        for figure in ("s", "cpu_s"):
            row[f"{which}_{figure}"] = statistics.median(run[figure] for run in runs)
        row[f"{which}_mib"] = max(run["mib"] for run in runs)
        row[f"{which}_all_s"] = [round(run["s"], 4) for run in runs]
    return row


def float64(root: Path) -> dict[str, float]:
    """The cosines computed in float64, ordered by depth and name."""
    aligned, unaligned = (load_file(root / part / "model.safetensors") for part in ("aligned", "unaligned"))
    task = load_file(root / "task" / "adapter_model.safetensors")
    rhos = {}
    for name in sorted(aligned):
        path = f"base_model.model.{name.removesuffix('.weight')}"
        A, B = (task[f"{path}.lora_{side}.weight"].double() for side in "AB")
        V = aligned[name].double() - unaligned[name].double()
        E = V @ (V.T @ B)
        cross, projected, change = (((X.T @ Y) * (A @ A.T)).sum() for X, Y in ((E, B), (E, E), (B, B)))
        rhos[name] = float(cross / (projected * change).sqrt())
    return rhos


def table(row: dict[str, Any]) -> list[lines.Line]:
    """Time of a merge beside the published manner."""
    peer = lines.Beside("published manner", row["plain_all_s"])
    return [lines.line(f"SafeMERGE, {row['case']}", "a merge", "s", row["ours_all_s"], peer=peer)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="*", default=range(5), help="numbers of the cases, from 0")
    parser.add_argument("--measure", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    lines.add_option(parser)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure, given.root, given.threads)
        return
    rows = []
    print(f"{os.cpu_count()} CPUs, {given.threads} threads, torch {torch.__version__}, {given.rounds} rounds")
    print("| case | matrices | plain s | ours s | faster | faster in CPU time | plain MiB | ours MiB | 3 tensors MiB "
          "| plain error | ours error |")  # fmt: skip
    print("| --- |" + " ---: |" * 10)
    for number, case in enumerate(CASES):
        if number not in given.only:
            continue
        row = compare(case, given.rounds, given.threads)
        rows.append(row)
        wall, cpu = (row[f"plain_{figure}"] / row[f"ours_{figure}"] for figure in ("s", "cpu_s"))  # type: ignore[operator]
        print(
            f"| {row['case']} | {row['matrices']} | {row['plain_s']:.2f} | {row['ours_s']:.3f} | {wall:.0f} | "
            f"{cpu:.0f} | "
            f"{row['plain_mib']:.0f} | {row['ours_mib']:.0f} | {3 * row['largest_mib']:.0f} | "  # type: ignore[operator]
            f"{row['plain_error']:.0e} | {row['ours_error']:.0e} |",
            flush=True,
        )
    lines.write(given.lines, [each for row in rows for each in table(row)])
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
