"""Garbage is looked for seldom between the console script's start and the work, and never otherwise than usual."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from pipelines.core import collecting


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    usual = gc.get_threshold()
    yield
    gc.enable()
    gc.set_threshold(*usual)
    gc.unfreeze()


def test_it_is_seldom_until_work_begins() -> None:
    usual = gc.get_threshold()
    gc.disable()
    collecting.begin_seldom()
    assert gc.isenabled()
    assert gc.get_threshold()[0] > 10 * usual[0]
    collecting.settle()
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() > 0
    # What becomes garbage afterwards is found.
    ring: list[object] = []
    ring.append(ring)
    del ring
    assert gc.collect() > 0


def test_a_process_that_is_not_the_console_script_is_left_alone() -> None:
    usual, frozen = gc.get_threshold(), gc.get_freeze_count()
    collecting.begin_seldom()
    collecting.settle()
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, frozen)
