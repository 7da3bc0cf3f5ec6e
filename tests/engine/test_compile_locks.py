"""Locks of a killed compilation are removed, those of a living one are not."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.engine import compile_locks


def make_lock(root: Path, age_s: float) -> Path:
    lock = root / "py311_cpu" / "operator" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    then = time.time() - age_s
    os.utime(lock, (then, then))
    return lock


def test_an_abandoned_lock_is_removed(tmp_path: Path) -> None:
    lock = make_lock(tmp_path, 1000)
    compile_locks.release_abandoned(tmp_path)
    assert not lock.exists()


def test_a_held_lock_is_left(tmp_path: Path) -> None:
    lock = make_lock(tmp_path, 1000)
    descriptor = os.open(lock, os.O_RDONLY)
    try:
        compile_locks.release_abandoned(tmp_path)
        assert lock.exists()
    finally:
        os.close(descriptor)


def test_a_young_lock_gets_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = make_lock(tmp_path, 0)
    waited_s = [0.0]
    began = lock.stat().st_mtime

    def sleep(seconds: float) -> None:
        assert lock.exists()
        waited_s[0] += seconds

    clock = SimpleNamespace(time=lambda: began + waited_s[0], sleep=sleep)
    monkeypatch.setattr(compile_locks, "time", clock)
    compile_locks.release_abandoned(tmp_path)
    assert not lock.exists()
    assert waited_s[0] == compile_locks.PATIENCE_S
