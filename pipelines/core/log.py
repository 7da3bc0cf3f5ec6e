"""Logging: one stream on standard error, rank zero only; standard output is for results alone."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator

from data_registry.core.redaction import hide
from data_registry.core.visible import visible
from pipelines.core.job import rank

# These loggers announce every engine detail at warning level; --verbose shows them.
_TALKATIVE = ("DeepSpeed", "deepspeed", "torch.distributed", "transformers", "accelerate", "trl", "datasets")


class _ErrorsAlone(logging.Filter):
    """Lets only errors through. Unlike a level, a filter survives when a library sets its logger's level on import."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is an error."""
        return record.levelno >= logging.ERROR


_ERRORS_ALONE = _ErrorsAlone()


class _Visible(logging.Formatter):
    """Messages name rows, files and what libraries say of them: control characters are spelled out, tokens hidden."""

    def __init__(self, layout: str, fit: Callable[[str], str] | None) -> None:
        super().__init__(layout)
        self._fit = fit

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines with a traceback."""
        text = visible(hide(super().format(record)), block=True)
        return self._fit(text) if self._fit is not None else text


def configure(verbose: bool = False, *, fit: Callable[[str], str] | None = None) -> None:
    """Send the project's log to standard error: information on rank zero, warnings and above elsewhere.

    Args:
        verbose: with details, and with what libraries say.
        fit: breaks a text into lines that fit a terminal; None leaves it as it is.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    prefix = "" if rank() == 0 else f"[rank {rank()}] "
    handler.setFormatter(_Visible(prefix + "%(message)s", fit))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    level = logging.DEBUG if verbose else logging.INFO
    if rank() != 0:
        level = logging.WARNING
    for name in ("ogpsa_cli", "pipelines", "data_registry"):
        logging.getLogger(name).setLevel(level)
    if not verbose:
        # Deprecation warnings of libraries are meant for those who call them, not for users of this tool.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.removeFilter(_ERRORS_ALONE)
        if not verbose:
            logger.setLevel(logging.ERROR)
            logger.addFilter(_ERRORS_ALONE)


@contextlib.contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """A context in which nothing is logged until the function that it gives is called; what was held back is then said.

    What is still held back when the context is left by an error is dropped.
    """
    root = logging.getLogger()
    handlers, kept = root.handlers[:], _Kept()
    root.handlers[:] = [kept]

    def release() -> None:
        if kept in root.handlers:
            root.handlers[:] = handlers
            for record in kept.records:
                root.handle(record)

    try:
        yield release
        release()
    finally:
        root.handlers[:] = handlers


class _Kept(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)
