"""Locks that a killed process leaves beside the operators that torch compiles at first use.

Every later run would wait for such a lock for ever, without any message.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

logger = logging.getLogger(__name__)

# Where the folder is shared, a lock that no process here holds may belong to another machine, but not for long.
PATIENCE_S = 120.0
_POLL_S = 0.5


def release_abandoned(root: Path | None = None) -> None:
    """Remove locks that no process holds; where another machine may hold one, wait for it first.

    Args:
        root: the folder of compiled operators; torch's own by default.
    """
    for lock in _locks(_default_root() if root is None else root):
        if is_held(lock):
            logger.info("waiting: another process compiles %s", lock.parent.name)
            continue
        age = _age(lock)
        if age is not None and age < PATIENCE_S:
            logger.info("%s is locked; waiting %.0f s for whoever compiles it", lock.parent.name, PATIENCE_S - age)
        while age is not None and age < PATIENCE_S and not is_held(lock):
            time.sleep(_POLL_S)
            age = _age(lock)
        if age is not None and age >= PATIENCE_S:
            logger.info("removing the lock that a killed process left: %s", lock)
            lock.unlink(missing_ok=True)


def is_held(lock: Path) -> bool:
    """Whether a process of this machine has the lock open, as torch keeps it while it compiles."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(descriptor) == str(lock):
                return True
        except OSError:
            continue  # the process has ended, or belongs to another user
    return False


def _locks(root: Path) -> list[Path]:
    # With TORCH_EXTENSIONS_DIR there are no separate folders for each Python version and device.
    return [path.resolve() for pattern in ("*/lock", "*/*/lock") for path in root.glob(pattern)]


def _age(lock: Path) -> float | None:
    try:
        return time.time() - lock.stat().st_mtime
    except FileNotFoundError:
        return None


def _default_root() -> Path:
    from torch.utils.cpp_extension import get_default_build_root

    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
