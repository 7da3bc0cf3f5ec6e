"""The arithmetic that GPUs can do at best, from their makers' data sheets: dense matrix products, TFLOP/s."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import torch

Arithmetic = Literal["bf16", "fp16", "tf32", "fp32"]
# With sums in fp32, as training has them, and without sparsity. By the words that a device's name must have; of
# several that fit, the one with the most words counts.
PEAKS: Final[Mapping[str, Mapping[Arithmetic, float]]] = {
    "B200": {"bf16": 2250, "fp16": 2250, "tf32": 1100, "fp32": 75},
    "H200": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    "GH200": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    "H100": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    "H100 PCIe": {"bf16": 756, "fp16": 756, "tf32": 378, "fp32": 51},
    "H100 NVL": {"bf16": 835, "fp16": 835, "tf32": 417, "fp32": 60},
    "H800": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    "H20": {"bf16": 148, "fp16": 148, "tf32": 74, "fp32": 44},
    "A100": {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5},
    "A800": {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5},
    "A40": {"bf16": 149.7, "fp16": 149.7, "tf32": 74.8, "fp32": 37.4},
    "A30": {"bf16": 165, "fp16": 165, "tf32": 82, "fp32": 10.3},
    "A10": {"bf16": 125, "fp16": 125, "tf32": 62.5, "fp32": 31.2},
    "A10G": {"bf16": 70, "fp16": 70, "tf32": 35, "fp32": 35},
    "A6000": {"bf16": 154.8, "fp16": 154.8, "tf32": 77.4, "fp32": 38.7},
    "L40S": {"bf16": 362, "fp16": 362, "tf32": 183, "fp32": 91.6},
    "L40": {"bf16": 181, "fp16": 181, "tf32": 90.5, "fp32": 90.5},
    "L4": {"bf16": 121, "fp16": 121, "tf32": 60, "fp32": 30.3},
    "RTX 4090": {"bf16": 165.2, "fp16": 165.2, "tf32": 82.6, "fp32": 82.6},
    "RTX 3090": {"bf16": 71, "fp16": 71, "tf32": 35.6, "fp32": 35.6},
    "V100": {"fp16": 125, "fp32": 15.7},
    "V100 PCIE": {"fp16": 112, "fp32": 14},
    "T4": {"fp16": 65, "fp32": 8.1},
}
_OTHERWISE = frozenset({"laptop", "mig", "d", "max"})


def peak_flops(device_name: str, arithmetic: Arithmetic) -> float | None:
    """The most operations a second of a device; None where it is not known, or does not have such arithmetic.

    Args:
        device_name: the name that the driver gives, such as ``NVIDIA A100-SXM4-80GB``.
        arithmetic: the kind of numbers that are multiplied.
    """
    words = {word.lower() for word in re.split(r"[\s\-/_]+", device_name)}
    if words & _OTHERWISE:
        # Parts of devices, and slower ones of the same number.
        return None
    fitting = [name for name in PEAKS if {word.lower() for word in name.split()} <= words]
    if not fitting:
        return None
    found = PEAKS[max(fitting, key=lambda name: len(name.split()))].get(arithmetic)
    return None if found is None else found * 1e12


def peak_of(device: torch.device, precision: str) -> float | None:
    """The most operations a second of the device that trains; None for CPUs and for GPUs that are not in the table.

    Args:
        device: the device.
        precision: ``"fp32"`` or ``"bf16"``, the arithmetic of the training.
    """
    if device.type != "cuda":
        return None
    rounded = torch.backends.cuda.matmul.allow_tf32 or torch.get_float32_matmul_precision() != "highest"
    arithmetic: Arithmetic = "bf16" if precision == "bf16" else "tf32" if rounded else "fp32"
    return peak_flops(torch.cuda.get_device_name(device), arithmetic)
