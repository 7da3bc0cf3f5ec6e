"""Random numbers for the tensors of a merge."""

from __future__ import annotations

import hashlib

import torch


def generator_for(seed: int, name: str) -> torch.Generator:
    """Random numbers that belong to a tensor's name: the same in whatever order tensors are merged."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
