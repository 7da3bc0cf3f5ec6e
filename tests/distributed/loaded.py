"""A process with everything imported, which forks the processes of one job after the other: imports are paid for once.

``python -m tests.distributed.loaded``: a line of JSON for each job in, its exit code out. A job is a module on so many
ranks, with the variables that torchrun would set, so that the tests do not stand on the project's own launcher.
:func:`call` starts such a process, at first, and asks it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from tests.faults import forks

ROOT = Path(__file__).resolve().parents[2]
_POLL_S = 0.01


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        module: runs as ``python -m MODULE ARGUMENTS`` would.
        arguments: after it.
        num_procs: ranks; a lone one is no job and has none of the variables.
        env: all variables of its processes, but for those of the launch.
        folder: where it runs.
        out: a file for what its processes print.
        err: one for their errors, which may be the same.
        timeout_s: after so long it is ended.
    """

    module: str
    arguments: Sequence[str]
    num_procs: int
    env: dict[str, str]
    folder: str
    out: str
    err: str
    timeout_s: float


def call(job: Job) -> int:
    """The exit code of a job, which a process with everything imported has forked; that process stays for the next."""
    server = _started()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(asdict(job)) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


@functools.cache
def _started() -> subprocess.Popen[str]:
    """The process that forks; it ends with its standard input, and so when this one does."""
    # Whether there are GPUs is asked without starting CUDA, which no fork survives.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    command = [sys.executable, "-m", "tests.distributed.loaded"]
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    atexit.register(process.communicate)
    return process


def serve(job: Job) -> int:
    """Fork the ranks and wait for them: zero, or the code of the first that failed, for which the others are ended."""
    ports, port = os.pipe()
    pids = [_forked(job, rank, ports) for rank in range(job.num_procs)]
    os.close(ports)
    # The store is made after the forks: its thread is none of theirs.
    store = _store() if job.num_procs > 1 else None
    for _ in pids:
        os.write(port, b"%5d" % (store.port if store is not None else 0))
    os.close(port)
    return _wait(pids, time.monotonic() + job.timeout_s)


def _store() -> object:
    from torch.distributed import TCPStore

    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def _wait(pids: list[int], deadline: float) -> int:
    first, parent = 0, os.getppid()
    while pids:
        for pid in list(pids):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                pids.remove(pid)
                first = first or os.waitstatus_to_exitcode(status)
        if first or time.monotonic() > deadline or os.getppid() != parent:
            first = first or -signal.SIGALRM
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    return first


def _forked(job: Job, rank: int, ports: int) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _be(job, rank, ports)
    return pid


def _be(job: Job, rank: int, ports: int) -> NoReturn:
    """Be a rank from here on, and end as it does."""
    code = 1
    try:
        os.chdir(job.folder)
        with open(os.devnull) as nothing, open(job.out, "ab") as out, open(job.err, "ab") as err:
            for stream, file in enumerate((nothing, out, err)):
                os.dup2(file.fileno(), stream)
        os.environ.clear()
        os.environ.update(job.env)
        port = os.read(ports, 5).decode().strip()
        if job.num_procs > 1:
            os.environ.update(_as_torchrun(rank, job.num_procs, port))
        sys.argv = [job.module, *job.arguments]
        runpy.run_module(job.module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - a rank fails in any way
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        # What this process was forked from has its own things to do at exit.
        os._exit(code)


def _as_torchrun(rank: int, num_procs: int, port: str) -> dict[str, str]:
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_procs), "LOCAL_WORLD_SIZE": str(num_procs),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip


def main() -> None:
    """Until there are no more lines."""
    answers = os.fdopen(os.dup(1), "w")
    # What a library prints is no answer.
    os.dup2(2, 1)
    forks.import_libraries()
    # A fork lacks them; pyarrow's allocator knows how to do without its own.
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")} - {"jemalloc_bg_thd"}
    assert len(threads) == 1, threads
    for line in sys.stdin:
        print(serve(Job(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
