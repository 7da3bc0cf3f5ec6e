"""An ordered map over worker processes: results and their order are the same for any number of workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from data_registry.core import stopping
from data_registry.core.errors import InputError
from pipelines.core.parent import end_with

# A signal to the whole job ends the workers too, perhaps a moment before it reaches this process, or longer before on a
# busy machine. The signal ends the wait.
_SAME_SIGNAL_S = 3.0

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_function: Callable[[Any], Any] | None = None


def ordered_map(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, num_workers: int = 1
) -> Generator[ResultT, None, None]:
    """Yield ``function(item)`` for every item, in order.

    Close the generator if you may not go to its end: workers are waited for then, which no collection should do.

    At most two items per worker are under way, so that a source larger than memory is read no faster than it is
    processed.

    Args:
        function: must be picklable if ``num_workers > 1``; it is sent to each worker once, so it may hold a tokenizer.
        items: the items, which are read lazily.
        num_workers: the number of worker processes; with 1 the work is done in this process.

    Raises:
        InputError: a worker was killed, usually for lack of memory.
        StopRequested: a worker ended by a signal that asks this process to stop as well.
    """
    if num_workers == 1:
        yield from map(function, items)
        return
    # Started afresh, not forked: the parent may hold CUDA contexts and the locks of tokenizer threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_install, initargs=(os.getpid(), function))
    waiting: deque[Future[Any]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_call, item))
            if len(waiting) >= 2 * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        stopping.check()
        time.sleep(_SAME_SIGNAL_S)
        stopping.check()
        raise InputError(
            "a worker process ended before its work was done; the system may have been short of memory",
            fix="use fewer --num-workers",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _install(parent: int, function: Callable[[Any], Any]) -> None:
    global _function
    # A worker waits for work at a pipe whose other end its siblings hold too, so that it would not see its parent end.
    # When all workers are gone, so is the process that removes the semaphores.
    end_with(parent)
    _function = function
    # The workers are the parallelism; threads of the tokenizer below them would only compete.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _call(item: Any) -> Any:
    assert _function is not None
    return _function(item)
