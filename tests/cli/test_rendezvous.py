"""Tasks that find each other although the port that they thought of is taken, by whatever it is."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from data_registry.core.errors import InputError
from ogpsa_cli.launch import rendezvous, slurm
from tests.cli.test_slurm import TASK


@pytest.fixture
def ports() -> list[int]:
    """Free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    found = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return found


@pytest.fixture
def taken(ports: list[int]) -> Iterator[socket.socket]:
    """Somebody else's server on the first of them, which accepts and says nothing."""
    with socket.create_server(("", ports[0])) as server:
        yield server


def meet(ports: list[int], ranks: list[int], world_size: int, word: str = "job 7", timeout_s: float = 600) -> list[int]:
    def one(rank: int) -> int:
        return rendezvous.agree(
            ports, host="127.0.0.1", rank=rank, world_size=world_size, word=word, timeout_s=timeout_s
        )

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(one, ranks))


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as a rank zero has its port."""
    event, listen = threading.Event(), rendezvous._listen

    def listen_and_say_so(ports: Sequence[int], host: str) -> socket.socket:
        server = listen(ports, host)
        event.set()
        return server

    monkeypatch.setattr(rendezvous, "_listen", listen_and_say_so)
    return event


def test_all_meet_at_the_first_port(ports: list[int]) -> None:
    assert meet(ports, [2, 1, 0, 3], 4) == [ports[0]] * 4


def test_the_port_is_free_again_at_once(ports: list[int]) -> None:
    meet(ports, [0, 1], 2)
    # As torch's store does, without waiting for the system to forget the connections.
    with socket.create_server(("", ports[0])):
        pass


def test_a_taken_port_is_passed_over_by_all(ports: list[int], taken: socket.socket) -> None:
    assert meet(ports, [0, 1, 2], 3) == [ports[1]] * 3


def test_another_job_at_the_same_port_is_not_joined(ports: list[int], listening: threading.Event) -> None:
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(meet, ports, [0], 2, "job 8")
        assert listening.wait(600)
        assert meet(ports, [0, 1], 2, "job 7") == [ports[1]] * 2
        late = pool.submit(meet, ports, [1], 2, "job 8")
        assert other.result() == late.result() == [ports[0]]


def test_a_stranger_is_not_counted(ports: list[int], listening: threading.Event) -> None:
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(meet, ports, [0], 2)
        assert listening.wait(600)
        with socket.create_connection(("127.0.0.1", ports[0])) as stranger:
            stranger.sendall(b"GET / HTTP/1.0\n")
            assert not served.done()
        assert meet(ports, [1], 2) == served.result() == [ports[0]]


def test_a_task_that_is_slow_to_leave_is_counted(ports: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine lets it read its welcome and close the connection when nobody waits for that any more."""
    monkeypatch.setattr(rendezvous, "_ANSWER_S", 0.2)
    served = threading.Event()
    line = rendezvous._line

    def slow_line(connection: socket.socket) -> str:
        said = line(connection)
        if said == "welcome":
            assert served.wait(600)
        return said

    monkeypatch.setattr(rendezvous, "_line", slow_line)
    with ThreadPoolExecutor(2) as pool:
        late = pool.submit(meet, ports, [1], 2)
        assert meet(ports, [0], 2) == [ports[0]]
        served.set()
        assert late.result() == [ports[0]]


def test_waiting_ends_with_who_is_missing(ports: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    later_s = 0.0
    monkeypatch.setattr(
        rendezvous, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + later_s, sleep=time.sleep)
    )
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(meet, ports, [0], 3)
        assert meet(ports, [1], 3) == [ports[0]]
        # All of the time has passed when the next one comes, who is a stranger, if it has not been noticed before.
        later_s = 1e6
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", ports[0])).close()
        with pytest.raises(InputError, match=r"1 of 3 tasks did not come to 127\.0\.0\.1.*rank 2"):
            served.result()
    with pytest.raises(InputError, match=r"rank 0 was not found on 127\.0\.0\.1"):
        meet(ports, [1], 2, timeout_s=0.2)


def test_no_free_port_is_said(ports: list[int], taken: socket.socket) -> None:
    with pytest.raises(InputError, match="all ports that this job may use are taken"):
        meet(ports[:1], [0], 1)


def test_a_step_meets_by_its_own_variables() -> None:
    # Job numbers of no real job; the ports follow from them.
    env = {**TASK, "SLURM_JOB_ID": "987654321", "SLURM_STEP_NUM_TASKS": "2", "MASTER_ADDR": "127.0.0.1"}
    tasks = [{**env, **slurm.translate({**env, "SLURM_PROCID": str(rank)})} for rank in range(2)]
    with socket.create_server(("", slurm.ports(env)[0])), ThreadPoolExecutor(2) as pool:
        assert list(pool.map(slurm.meet, tasks)) == [str(slurm.ports(env)[1])] * 2
