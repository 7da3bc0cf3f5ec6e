"""Reading ahead: jobs run in threads while their results are taken in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

Job = Callable[[], Any]

AHEAD = 4
"""Results that wait: enough that reader and threads seldom wait for each other, and little memory."""


@contextmanager
def read_ahead(jobs: Iterable[Job], workers: int) -> Iterator[Iterator[Any]]:
    """Run jobs in ``workers`` threads, at most ``AHEAD`` more than that ahead of the reader.

    Yields:
        The results, in the order of the jobs whatever the number of workers. An exception of a job is raised where
        its result would have come.
    """
    remaining = iter(jobs)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    pending: deque[Future[Any]] = deque(pool.submit(job) for job in islice(remaining, workers + AHEAD))

    def results() -> Iterator[Any]:
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(job) for job in islice(remaining, 1))
            yield result

    try:
        yield results()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
