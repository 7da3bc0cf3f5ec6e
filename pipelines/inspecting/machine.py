"""What this machine has, what would not work on it, and why."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import re
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.core.environment import git_commit, tool_version

State = Literal["ok", "limited", "missing", "info"]

# The oldest versions whose interfaces ours build on.
MINIMUM_VERSIONS = {
    "torch": "2.6",
    "transformers": "5.0",
    "trl": "1.0",
    "accelerate": "1.10",
    "deepspeed": "0.18",
    "peft": "0.18",
    "datasets": "4.0",
    "pyarrow": "18.0",
    "safetensors": "0.5",
    "pydantic": "2.8",
    "typer": "0.15",
    "rich": "13.0",
    "matplotlib": "3.8",
}
_OPTIONAL = {
    "tensorboard": "--report-to tensorboard",
    "wandb": "--report-to wandb",
    "liger_kernel": "Liger kernels (--set trainer.use_liger_kernel=true)",
    "flash_attn": "--attention flash_attention_2",
    "lm_eval": "capability suites of lm-evaluation-harness",
}
_LITTLE_DISK_BYTES = 20 << 30
_LITTLE_MEMORY_BYTES = 4 << 30
_HUB_TIMEOUT_S = 4.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: the heading that it is shown under.
        name: what was looked at.
        value: what was found.
        state: ``ok``, ``limited`` (something works less well), ``missing`` (something will not work), or ``info``.
        consequence: what would not work here, and why; empty when nothing.
    """

    area: str
    name: str
    value: str
    state: State = "ok"
    consequence: str = ""


# --- Software ----------------------------------------------------------------------------------------------------


def software_findings() -> Iterator[Finding]:
    """Python and the packages that ogpsa stands on."""
    area = "software"
    yield Finding(area, "ogpsa", " ".join(filter(None, (tool_version(), git_commit()))))
    yield Finding(area, "Python", platform.python_version())
    for name, minimum in MINIMUM_VERSIONS.items():
        yield _package(area, name, minimum)
    for module, use in _OPTIONAL.items():
        found = importlib.util.find_spec(module) is not None
        yield Finding(
            area,
            f"{module} (optional)",
            "installed" if found else "not installed",
            "info",
            "" if found else f"no {use}",
        )


def _package(area: str, name: str, minimum: str) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(area, name, "not installed", "missing", "most commands fail: install ogpsa again")
    if _numbers(version) < _numbers(minimum):
        why = f"needs {minimum} or later: install with the constraints file"
        return Finding(area, name, version, "missing", why)
    return Finding(area, name, version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


# --- Machine -----------------------------------------------------------------------------------------------------


def machine_findings() -> Iterator[Finding]:
    """Processors, memory and disks."""
    area = "machine"
    yield Finding(area, "system", platform.platform(), "ok" if sys.platform == "linux" else "limited")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(area, "CPU cores", f"{usable} usable of {os.cpu_count()}")
    memory = _available_memory()
    if memory is not None:
        little = memory < _LITTLE_MEMORY_BYTES
        why = "models above some hundred million parameters do not fit" if little else ""
        yield Finding(area, "free memory", size_text(memory), "limited" if little else "ok", why)
    yield from _disks(area)
    compiler = next((name for name in ("g++", "c++", "clang++") if shutil.which(name)), None)
    yield Finding(
        area, "C++ compiler", compiler or "none", "ok" if compiler else "limited",
        "" if compiler else "--offload does not work: DeepSpeed compiles its CPU optimizer when it is first used",
    )  # fmt: skip


def _disks(area: str) -> Iterator[Finding]:
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    places = {
        "disk here": Path.cwd(),
        "disk for temporary files": Path(tempfile.gettempdir()),
        "disk for hub downloads": next(folder for folder in (cache, *cache.parents) if folder.exists()),
    }
    for name, place in places.items():
        free = shutil.disk_usage(place).free
        little = free < _LITTLE_DISK_BYTES
        why = "checkpoints of larger models do not fit (about 14 bytes a parameter)" if little else ""
        yield Finding(area, name, f"{size_text(free)} free in {place}", "limited" if little else "ok", why)


def _available_memory() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    match = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(match.group(1)) << 10 if match else None


def size_text(num_bytes: float) -> str:
    """A number of bytes for people, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


# --- Devices and processes ---------------------------------------------------------------------------------------


def device_findings() -> Iterator[Finding]:
    """Accelerators, and what they can compute with."""
    area = "devices"
    torch: Any = _import_quietly("torch")
    if torch is None:
        yield Finding(area, "torch", "cannot be imported", "missing", "nothing that touches a model works")
        return
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        why = "training runs on the CPU, slowly" + ("" if built else ": this build of torch is for CPUs only")
        yield Finding(area, "GPU", "none", "limited", why)
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(area, f"GPU {index}", f"{properties.name}, {size_text(properties.total_memory)}")
    yield _bfloat16(area, torch)


def _bfloat16(area: str, torch: Any) -> Finding:
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Finding(area, "bf16", "in hardware")
        return Finding(area, "bf16", "not in hardware", "limited", "use --precision fp32: bf16 is emulated and slow")
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        flags = ""
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return Finding(area, "bf16", "in hardware (CPU)")
    why = "works, but --precision fp32 is faster on this CPU"
    return Finding(area, "bf16", "emulated (CPU)", "limited", why)


def distributed_findings() -> Iterator[Finding]:
    """Communication between processes, and DeepSpeed."""
    area = "several processes"
    torch: Any = _import_quietly("torch")
    if torch is not None and torch.distributed.is_available():
        gloo, nccl = torch.distributed.is_gloo_available(), torch.distributed.is_nccl_available()
        why = "" if gloo else "no several processes without GPUs"
        yield Finding(area, "gloo", "available" if gloo else "missing", "ok" if gloo else "missing", why)
        needed = torch.cuda.is_available()
        why = "" if nccl else "no several processes on GPUs" if needed else "only needed with GPUs"
        state: State = "ok" if nccl else "missing" if needed else "info"
        yield Finding(area, "nccl", "available" if nccl else "not in this build of torch", state, why)
    else:
        why = "--num-procs above 1 and --zero do not work"
        yield Finding(area, "torch.distributed", "not available", "missing", why)
    yield _deepspeed(area)


def _deepspeed(area: str) -> Finding:
    if _import_quietly("deepspeed") is None:
        return Finding(area, "DeepSpeed", "cannot be imported", "missing", "--zero, --offload, --deepspeed do not work")
    accelerator = _import_quietly("deepspeed.accelerator")
    name = accelerator.get_accelerator().device_name() if accelerator is not None else "unknown"
    return Finding(area, "DeepSpeed", f"works, on {name}")


def _import_quietly(name: str) -> Any:
    """A module, without what it prints on import; None where the import fails for whatever reason."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return importlib.import_module(name)
        except Exception:  # noqa: BLE001 - a broken installation fails in any way, and to say so is the job
            return None


def cluster_findings() -> Iterator[Finding]:
    """Slurm."""
    area = "cluster"
    found = shutil.which("srun") is not None
    job = os.environ.get("SLURM_JOB_ID")
    value = (f"job {job}" if job else "available") if found or job else "not here"
    yield Finding(area, "Slurm", value, "info", "" if found else "jobs cannot be submitted from here")


# --- Hub ---------------------------------------------------------------------------------------------------------


def hub_findings() -> Iterator[Finding]:
    """Whether the hub can be reached."""
    area = "hub"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in ("HF_HUB_OFFLINE",)):
        why = "only models and data sets that were fetched before can be named by hub id"
        yield Finding(area, endpoint, "offline by HF_HUB_OFFLINE", "limited", why)
        return
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_HUB_TIMEOUT_S):
            yield Finding(area, endpoint, "reachable")
    except urllib.error.HTTPError:
        # It answered.
        yield Finding(area, endpoint, "reachable")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        why = "name local directories; hub ids work only if fetched before (then set HF_HUB_OFFLINE=1)"
        yield Finding(area, endpoint, f"not reachable ({reason})", "limited", why)
