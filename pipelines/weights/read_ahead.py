"""Reading ahead: reads run in threads while their results are taken in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any

Read = Callable[[], Any]

AHEAD = 4
"""Results that wait: enough that reader and threads seldom wait for each other, and little memory."""


@contextmanager
def read_ahead(reads: Iterable[Read], workers: int, *, ahead: int = AHEAD) -> Iterator[Iterator[Any]]:
    """Run reads in ``workers`` threads, at most ``ahead`` more than that ahead of the reader.

    Yields:
        The results, in the order of the reads whatever the number of workers. An exception of a read is raised where
        its result would have come.
    """
    remaining = iter(reads)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    pending: deque[Future[Any]] = deque(pool.submit(read) for read in islice(remaining, workers + ahead))

    def results() -> Iterator[Any]:
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(read) for read in islice(remaining, 1))
            yield result

    try:
        yield results()
    finally:
        # What is being read is waited for, since its file may be closed next. The threads are not: if this runs because
        # a generator that was given up is collected, then in any thread, also in one that is just beginning and holds
        # what the end of another needs.
        pool.shutdown(wait=False, cancel_futures=True)
        wait(future for future in pending if not future.cancelled())
