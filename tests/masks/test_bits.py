"""Packed bits against big integers, and stored masks read at every offset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_registry.core.errors import ArtifactError
from pipelines.masks import bits
from pipelines.masks.parameters import Parameter
from pipelines.masks.storage import StoredMask, mask_files


def as_integer(flags: list[bool]) -> int:
    """The bits as one number, the first the least."""
    return sum(1 << place for place, flag in enumerate(flags) if flag)


@given(st.lists(st.lists(st.booleans(), max_size=40), max_size=6))
def test_runs_of_bits_become_the_bytes_of_all_of_them(runs: list[list[bool]]) -> None:
    packer = bits.Packer()
    parts = [packer.add(np.array(run, dtype=np.bool_)) for run in runs]
    packed = np.concatenate([*parts, packer.finish()])
    flags = [flag for run in runs for flag in run]
    assert int.from_bytes(packed.tobytes(), "little") == as_integer(flags)
    assert len(packed) == bits.num_bytes(len(flags))
    assert bits.count(packed) == sum(flags)


def test_a_stored_mask_is_read_from_every_place_to_every_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    flags = {"model.layers.10.w": rng.random(37) < 0.4, "model.layers.9.w": rng.random(8) < 0.5, "b": rng.random(1) < 2}
    parameters = [Parameter(name, (len(each),)) for name, each in flags.items()]
    with mask_files(tmp_path, parameters) as files:
        for name, each in flags.items():
            value = as_integer(each.tolist()).to_bytes(bits.num_bytes(len(each)), "little")
            files.add(name, torch.frombuffer(bytearray(value), dtype=torch.uint8))
    stored = StoredMask(tmp_path)
    for name, each in flags.items():
        for start in range(len(each) + 1):
            for stop in range(start, len(each) + 1):
                assert stored.flags(name, start, stop - start).tolist() == each[start:stop].tolist()
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ArtifactError, match="cannot be read"):
        stored.flags("b", 0, 1)
