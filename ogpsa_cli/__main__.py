"""Entry point: runs a command line and turns whatever goes wrong into one readable error and an exit code."""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_registry.core import stopping
from data_registry.core.errors import InputError, OgpsaError, Preempted, first_line, is_out_of_memory
from data_registry.core.redaction import hide
from data_registry.core.visible import visible
from ogpsa_cli import streams

if TYPE_CHECKING:
    from typer import TyperException

_INTERRUPTED, _BROKEN_PIPE, _BUG, _USAGE = 130, 141, 1, 2
# The errors that a full disk, a quota or a missing permission causes, in whichever library happens to write.
_FILE_SYSTEM = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.EIO,
}


def run(argv: Sequence[str]) -> int:
    """Run ``ogpsa`` with these arguments and return its exit code; errors are printed, not raised."""
    verbose = "--verbose" in argv
    try:
        return _attempt(argv)
    except KeyboardInterrupt:
        if stopping.requested() is not None:
            return _report_stop()
        _say("interrupted")
        return _INTERRUPTED
    except SystemExit as error:
        # Typer ends this way when the reader of its help is gone.
        return error.code if isinstance(error.code, int) else _BUG
    except OgpsaError as error:
        return _report(error, verbose=verbose)
    except BrokenPipeError as error:
        from ogpsa_cli import console

        return _BROKEN_PIPE if console.silence_broken_output() else _report_bug(error, verbose=verbose)
    except OSError as error:
        if _is_nowhere():
            gone = InputError(
                "the working directory is gone", fix="change to a directory that exists, and run it again"
            )
            return _report(gone, verbose=verbose)
        if error.errno not in _FILE_SYSTEM:
            return _report_bug(error, verbose=verbose)
        concerned = f"'{error.filename}'" if error.filename else "a file"
        wrapped = InputError(f"{concerned} could not be written or read: {error.strerror}")
        return _report(wrapped, verbose=verbose)
    except Exception as error:  # noqa: BLE001 - the one place where everything else ends
        if stopping.requested() is not None:
            # Another rank stopped first, in the middle of a collective operation.
            return _report_stop()
        return _report_lost(error, verbose=verbose) if _lost_contact(error) else _report_bug(error, verbose=verbose)


def _is_nowhere() -> bool:
    """Whether the working directory was removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _attempt(argv: Sequence[str]) -> int:
    from typer import TyperException

    from ogpsa_cli import app

    try:
        code = app.invoke(argv)
        if code == _INTERRUPTED:
            # Typer takes a stop that comes while it builds the command for Ctrl-C, and swallows it.
            stopping.check()
        sys.stdout.flush()
    except TyperException as error:
        return _report_usage(error, argv)
    finally:
        _take_down_bars()
    return code


def _take_down_bars() -> None:
    # This is needed only where a command got far enough to import the bars; help does not.
    progress = sys.modules.get("pipelines.core.progress")
    if progress is not None:
        progress.stop_all()


def _say(line: str) -> None:
    from pipelines.core.job import rank

    if rank() == 0:
        sys.stderr.write(visible(line, block=True) + "\n")


def _report_stop() -> int:
    _say(stopping.said())
    return Preempted.exit_code


def _lost_contact(error: Exception) -> bool:
    """Whether a collective operation failed because another process of the job is gone."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return False
    closed = any(words in str(error) for words in ("Connection closed by peer", "Connection reset by peer"))
    return closed or type(error).__name__ in ("DistBackendError", "DistNetworkError")


def _report_lost(error: Exception, *, verbose: bool) -> int:
    from ogpsa_cli import console
    from ogpsa_cli.launch import processes, ranks

    if verbose:
        _show_traceback(error)
    # Our own launcher knows more about the failure, and reports it.
    if processes.STARTED_BY_US not in os.environ and ranks.may_report():
        console.show_error(
            "another process of this job ended",
            fix="what it said itself is above or in its log; the same command goes on from what is finished",
        )
    return _BUG


def _report(error: OgpsaError, *, verbose: bool) -> int:
    from ogpsa_cli import console
    from ogpsa_cli.launch import ranks

    if isinstance(error, Preempted):
        _say(str(error))
        return error.exit_code
    if verbose:
        _show_traceback(error)
    if ranks.may_report():
        console.show_ogpsa_error(error)
    return error.exit_code


def _report_usage(error: TyperException, argv: Sequence[str]) -> int:
    from data_registry.core.documents import suggest
    from ogpsa_cli import console
    from ogpsa_cli.launch import ranks
    from pipelines.configs.commands import BY_NAME

    command = argv[0] if argv and argv[0] in BY_NAME else ""
    name = getattr(error, "option_name", None)
    if name and type(error).__name__ == "NoSuchOption":
        context = getattr(error, "ctx", None)
        known = [option for param in context.command.get_params(context) for option in param.opts] if context else []
        what = f"there is no option '{name}'{suggest(name, known)}"
    else:
        message = error.format_message().strip().rstrip(".")
        what = message[:1].lower() + message[1:]
    if ranks.may_report():
        console.show_error(what, fix=f"see  {' '.join(['ogpsa', command, '--help']).replace('  ', ' ')}")
    return _USAGE


def _show_traceback(error: BaseException) -> None:
    sys.stderr.write(visible(hide("".join(traceback.format_exception(error))), block=True))


def _report_bug(error: Exception, *, verbose: bool) -> int:
    from ogpsa_cli import console
    from ogpsa_cli.launch import ranks

    if verbose:
        _show_traceback(error)
    if not ranks.may_report():
        return _BUG
    if is_out_of_memory(error):
        console.show_error(
            f"out of memory: {first_line(error) if str(error).strip() else 'no more could be allocated'}",
            fix="a smaller --batch-size or --max-length, --gradient-checkpointing, more processes with --zero 3",
        )
        return _BUG
    place = traceback.extract_tb(error.__traceback__)[-1]
    console.show_error(
        f"this is a bug of ogpsa: {type(error).__name__}: {' '.join(str(error).split()) or 'no message'}",
        where=f"{place.filename}:{place.lineno} in {place.name}",
        fix="--verbose shows the traceback" if verbose else _keep_traceback(error),
    )
    return _BUG


def _keep_traceback(error: Exception) -> str:
    """Write the traceback to a file and return a sentence that says what to do with it."""
    import tempfile

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="ogpsa-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as stream:
            stream.write(hide("".join(traceback.format_exception(error))))
    except OSError:
        return "run it again with --verbose for the traceback, and report it"
    return f"report it with the traceback in {stream.name}"


def main() -> None:
    """The console script."""
    # Importing makes many objects and no garbage; help is a tenth faster without looking for any.
    gc.disable()
    streams.settle()
    try:
        stopping.listen()
        code = run(sys.argv[1:])
    except stopping.StopRequested:
        # The request arrived outside of any command, where there is nothing to undo.
        code = _report_stop()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        from ogpsa_cli import console

        console.silence_broken_output()
        code = code or _BROKEN_PIPE
    if code == Preempted.exit_code and os.environ.get("WORLD_SIZE", "1") != "1":
        # An orderly exit from the process group would wait for ranks that may have left already.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
