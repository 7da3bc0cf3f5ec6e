"""The benchmarks that one command runs, by name. A new one is one line in ``benchmarks.yaml``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

FILE = Path(__file__).with_name("benchmarks.yaml")
Size = Literal["full", "quick", "gpu"]


@dataclass(frozen=True)
class Benchmark:
    """A script that measures something and writes lines.

    Attributes:
        name: what ``--only`` calls it.
        module: what ``python -m`` runs.
        full: its arguments for results that are kept.
        quick: its arguments for a look in seconds, at a tiny size.
        gpu: its arguments on a GPU; None where it needs none.
        ranks: the number of processes on CPUs; on a GPU there is one.
        needs: modules of extras without which it is left out.
    """

    name: str
    module: str
    full: str = ""
    quick: str = ""
    gpu: str | None = None
    ranks: int = 1
    needs: tuple[str, ...] = ()

    def command(self, size: Size, lines: Path) -> list[str]:
        """The command that runs it in a process of its own, or in as many as it has ranks."""
        arguments = shlex.split({"full": self.full, "quick": self.quick, "gpu": self.gpu or ""}[size])
        ranks = 1 if size == "gpu" else self.ranks
        several = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"] if ranks > 1 else []
        return [sys.executable, "-m", *several, self.module, *arguments, "--lines", str(lines)]


def _registered() -> list[Benchmark]:
    entries = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return [Benchmark(name, **{**entry, "needs": tuple(entry.get("needs", ()))}) for name, entry in entries.items()]


BENCHMARKS: Sequence[Benchmark] = _registered()


def chosen(benchmarks: Sequence[Benchmark], names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of these names, in the table's order; all where no name is given.

    Raises:
        ValueError: a name is unknown; the message names those that there are.
    """
    known = [each.name for each in benchmarks]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no benchmark is called '{unknown[0]}'; there are {', '.join(known)}")
    return [each for each in benchmarks if not names or each.name in names]
