"""How the tasks of a Slurm step agree on a port when the one that follows from the job id is taken.

All tasks know the same sequence of ports. Rank zero listens on the first free one and identifies itself; the other
tasks try the ports in turn until they reach rank zero. Nothing is written to a shared place. Any other program that
listens on one of these ports is recognised because it does not answer with the agreed words.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterator, Sequence

from data_registry.core.errors import InputError

TIMEOUT_S = 300.0
# A listener that is silent for this long is another program, or so busy that it has to be asked again later.
_ANSWER_S = 2.0
_PAUSE_S = 0.1
_MAX_LINE_BYTES = 200


def agree(
    ports: Sequence[int], *, host: str, rank: int, world_size: int, word: str, timeout_s: float = TIMEOUT_S
) -> int:
    """The port on which all ranks will meet. A collective call, which returns when this rank knows the port.

    Args:
        ports: the ports to try, in order; the same on every rank.
        host: the host of rank zero.
        rank: the rank of this process.
        world_size: the number of processes.
        word: a text that only this group of processes knows, such as the job and step.
        timeout_s: how long to wait for the other ranks, in seconds.

    Raises:
        InputError: every port is taken, or the other ranks did not arrive in time.
    """
    deadline = time.monotonic() + timeout_s
    if rank == 0:
        return _serve(ports, host=host, world_size=world_size, word=word, deadline=deadline)
    while time.monotonic() < deadline:
        for port in ports:
            if _is_there(host, port, rank=rank, word=word, deadline=deadline):
                return port
        time.sleep(_PAUSE_S)
    raise InputError(
        f"rank 0 was not found on {host}, at none of the ports {_shown(ports)}",
        fix="if tasks cannot reach each other on these, choose another with MASTER_PORT, or a host with MASTER_ADDR",
    )


def _serve(ports: Sequence[int], *, host: str, world_size: int, word: str, deadline: float) -> int:
    with _listen(ports, host) as server:
        port: int = server.getsockname()[1]
        waiting = set(range(1, world_size))
        while waiting and time.monotonic() < deadline:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    waiting.discard(_welcome(connection, word))
    if waiting:
        ranks = ", ".join(map(str, sorted(waiting)[:8]))
        raise InputError(
            f"{len(waiting)} of {world_size} tasks did not come to {host}, port {port}: rank {ranks}",
            fix="see what they print; if they cannot reach this host, set MASTER_ADDR or MASTER_PORT",
        )
    return port


def _listen(ports: Sequence[int], host: str) -> socket.socket:
    """A socket on the first free port."""
    for port in ports:
        for family in _families():
            try:
                both = family == socket.AF_INET6
                return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=1024)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    break
    raise InputError(f"all ports that this job may use are taken on {host}: {_shown(ports)}", fix="set MASTER_PORT")


def _families() -> Iterator[socket.AddressFamily]:
    if socket.has_dualstack_ipv6():
        yield socket.AF_INET6
    # IPv4 is also tried after IPv6, for machines that claim IPv6 but cannot use it.
    yield socket.AF_INET


def _welcome(connection: socket.socket, word: str) -> int:
    """Identify rank zero to a caller and return the caller's rank; -1 for a stranger."""
    connection.settimeout(_ANSWER_S)
    connection.sendall(f"{word}\n".encode())
    answer = _line(connection)
    name, _, rank = answer.rpartition(" ")
    if name != word or not rank.isdigit():
        return -1
    connection.sendall(b"welcome\n")
    # The other side closes first, because the port of the side that closes first stays blocked for a while. The other
    # side will read its welcome however busy its machine is, so it counts as arrived even if closing takes longer.
    with contextlib.suppress(OSError):
        connection.recv(1)
    return int(rank)


def _is_there(host: str, port: int, *, rank: int, word: str, deadline: float) -> bool:
    """Whether rank zero listens at a port, and has noted this rank."""
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_S) as connection:
            if _line(connection) != word:
                return False
            # This is rank zero. It may have counted this rank: the connection must stay open until it says so.
            connection.settimeout(max(_ANSWER_S, deadline - time.monotonic()))
            connection.sendall(f"{word} {rank}\n".encode())
            return _line(connection) == "welcome"
    except OSError:
        return False


def _line(connection: socket.socket) -> str:
    received = b""
    while not received.endswith(b"\n") and len(received) < _MAX_LINE_BYTES:
        piece = connection.recv(_MAX_LINE_BYTES)
        if not piece:
            break
        received += piece
    return received.decode(errors="replace").strip()


def _shown(ports: Sequence[int]) -> str:
    return ", ".join(map(str, ports))
