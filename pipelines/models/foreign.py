"""What libraries raise while they read a user's files is a fault of those files, whatever its type."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from data_registry.core.errors import InputError, OgpsaError, first_line

_LONGEST = 300
"""Characters of a library's message that are shown; some quote whole files."""
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "Cannot allocate memory")


@contextlib.contextmanager
def foreign_files(what: str, *, where: str | None = None, fix: str | None = None) -> Iterator[None]:
    """A context in which a library reads files that ogpsa did not write.

    Libraries state no closed list of what a damaged file makes them raise: it may be a ZeroDivisionError, an exception
    of a validator, or a panic of their Rust code. Errors about memory say nothing about the files and pass through.

    Args:
        what: what cannot be done, such as ``"no tokenizer can be loaded from 'model'"``; the reason is added.
        where: the file concerned.
        fix: what to do next.

    Raises:
        InputError: the library raised something.
    """
    try:
        yield
    except (OgpsaError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_WORDS):
            raise
        raise InputError(f"{what}: {_reason(error)}", where=where, fix=fix) from error
    except BaseException as error:
        # Rust code that gives up derives its exception from BaseException; so do Ctrl-C and exit, which must pass.
        if type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what}: {_reason(error)}", where=where, fix=fix) from error


def _reason(error: BaseException) -> str:
    said = first_line(error)
    if isinstance(error, RecursionError):
        said = "it is nested too deeply"
    elif isinstance(error, KeyError | IndexError | AssertionError | AttributeError | ZeroDivisionError):
        # The words of these alone, such as "'x'", would not say that something is missing.
        said = f"{type(error).__name__}: {said}"
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]} ..."
