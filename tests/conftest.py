"""What holds for all tests: one thread a process, no network, no clock, and the longest first."""

from __future__ import annotations

import gc
import glob
import logging
import os
from collections.abc import Iterator

# Before anything imports torch: on few cores its threads wait for each other more than they compute.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests run on processors on every machine, several processes at once. Those marked gpu start processes that see the
# GPUs again (tests/gpu/devices.py).
if glob.glob("/dev/nvidia[0-9]*") and "OGPSA_TESTS_CUDA_VISIBLE_DEVICES" not in os.environ:
    os.environ["OGPSA_TESTS_CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first, so that two workers end at about the same time."""
    weights = {item.path: 0 for item in items}
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        weights[item.path] = max(weights[item.path], 2 * ("slow" in marks) + ("distributed" in marks))
    # Chains of jobs wait for a scheduler more than they compute: begun last, they would be waited for alone. The other
    # file of Slurm's comes in its turn, so that there is one cluster at a time.
    items.sort(key=lambda item: ("slurm/test_jobs" not in item.path.as_posix(), -weights[item.path]))


def pytest_collection_finish() -> None:
    """A million objects of the libraries stay as they are: no collection needs to walk through them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test takes itself for a rank of some other job."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


_LOGGERS = (None, "ogpsa_cli", "pipelines", "data_registry")


@pytest.fixture(autouse=True)
def _own_levels() -> Iterator[None]:
    """A command that was quiet as a rank of some job leaves the next test its log."""
    before = [(logger, logger.level) for logger in map(logging.getLogger, _LOGGERS)]
    yield
    for logger, level in before:
        logger.setLevel(level)
