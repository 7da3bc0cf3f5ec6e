"""Standard streams that may be closed, or whose reader may go: the work goes on without them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import sys

# Nobody reads any more: the pipe was closed, the terminal hung up, or the descriptor is gone.
_READER_IS_GONE = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ESTALE}


class _Log(io.TextIOWrapper):
    """Standard error that loses what cannot be written, instead of ending the work over a line of its log."""

    def write(self, text: str) -> int:
        """Write text, if somebody reads it."""
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Pass on what was written, if somebody reads it."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        if error.errno in _READER_IS_GONE:
            with contextlib.suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)


def settle() -> None:
    """Give this process all three standard streams: closed ones lead nowhere, and standard error never fails.

    A descriptor that stays closed would be given to the next file that is opened, and what is printed would go there.
    """
    for number in (0, 1, 2):
        if not _is_usable(number):
            nowhere = os.open(os.devnull, os.O_RDWR)
            # Where the descriptor was free it is this one, since those below it are open.
            if nowhere == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(nowhere, number)
                os.close(nowhere)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", closefd=False)
    _guard_standard_error()


def _is_usable(number: int) -> bool:
    """Whether a standard stream is open. Where one was closed, a shell may have opened its script under its number."""
    try:
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
    except OSError:
        return False
    return number == 0 or flags & os.O_ACCMODE != os.O_RDONLY


def _guard_standard_error() -> None:
    encoding = "utf-8" if sys.stderr is None else sys.stderr.encoding
    raw = io.BufferedWriter(io.FileIO(2, "w", closefd=False))
    sys.stderr = _Log(raw, encoding=encoding, errors="backslashreplace", line_buffering=True)
