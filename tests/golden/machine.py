"""On what a record was made, which decides whether numbers must be equal to the bit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

_PACKAGES = ("torch", "numpy", "transformers", "trl", "accelerate", "deepspeed", "peft", "scipy")


def machine() -> dict[str, str]:
    """What numbers may depend on to the last bit: processor, its instructions as torch uses them, and versions."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "blas": "mkl" if torch.backends.mkl.is_available() else "other",
        # numpy's products are those of the kernels that OpenBLAS takes.
        "openblas": os.environ.get("OPENBLAS_CORETYPE", "by itself"),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
    }
