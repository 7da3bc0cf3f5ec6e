"""What machine results were measured on. Asks the system and the driver, and imports nothing heavy."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Figures of two machines are compared only where these agree: another driver is the same machine.
SAME = ("processor", "cpus", "memory_gib", "gpus")


def describe() -> dict[str, Any]:
    """The machine: processor, number of cores this process may use, memory, GPUs and their driver, load."""
    gpus = nvidia_gpus()
    return {
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpus": [name for name, _ in gpus],
        "driver": gpus[0][1] if gpus else None,
        "system": platform.platform(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def nvidia_gpus() -> list[tuple[str, str]]:
    """Name and driver version of each NVIDIA GPU, as the driver says; an empty list without one."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if run.returncode:
        return []
    pairs = [entry.rpartition(",") for entry in run.stdout.splitlines() if "," in entry]
    return [(name.strip(), driver.strip()) for name, _, driver in pairs]


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In what two machines differ, such as ``cpus: 2 here, 8 there``; empty where they are the same."""
    return "; ".join(
        f"{name}: {_said(one.get(name))} here, {_said(other.get(name))} there"
        for name in SAME
        if one.get(name) != other.get(name)
    )


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [entry.partition(":")[2].strip() for entry in lines if entry.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
