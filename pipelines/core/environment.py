"""The environment that a result was made in: packages, commit, devices, processes. Imports nothing heavy."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipelines.core.job import world_size

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "deepspeed",
    "peft",
    "datasets",
    "pyarrow",
    "safetensors",
)


def tool_version() -> str:
    """The installed version of ogpsa."""
    try:
        return importlib.metadata.version("ogpsa")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def package_versions() -> dict[str, str]:
    """Versions of the packages that determine results; those not installed are left out."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """The commit of ogpsa's own checkout, with ``-dirty`` where it has uncommitted changes; None outside one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        run = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None


def describe_python() -> str:
    """The version of the interpreter."""
    return platform.python_version()


def devices() -> list[str]:
    """Names of the visible accelerators; asks torch only where it is loaded already."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def describe() -> dict[str, Any]:
    """The environment record of a manifest."""
    return {
        "python": describe_python(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "commit": git_commit(),
        "devices": devices(),
        "cpus": os.cpu_count(),
        "world_size": world_size(),
    }
