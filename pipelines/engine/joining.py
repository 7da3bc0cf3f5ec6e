"""Joining the job's other processes before anything is computed. A lone process has none, and needs no torch for it."""

from __future__ import annotations

from pipelines.core.job import world_size


def join() -> None:
    """Join the job's process group, if it has several processes, so that rank zero can tell the others what it finds.

    Commands join before they look whether their artifact is there already; those that go on to compute then ask
    :func:`pipelines.engine.processes.start` for the device.
    """
    if world_size() > 1:
        from pipelines.engine import processes

        processes.start()
