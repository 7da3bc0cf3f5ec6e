"""A real Slurm of two small nodes on this machine, without systemd and without touching its configuration.

munged, slurmctld and two slurmds run from a folder of their own on free ports. Each slurmd believes in a host name of
its own (private UTS and mount namespaces with another /etc/hosts), so that jobs over two nodes are real ones.
Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge.

By hand: ``python -m tests.slurm.cluster FOLDER`` starts one, says what to export, and ends it with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "unshare", "setpriv")
NODES = {"node1": "127.0.0.1", "node2": "127.0.0.2"}
CPUS = 4
Daemon = subprocess.Popen[bytes]
# Bounds for a cluster that hangs; how soon it starts is the machine's affair.
_START_S, _END_S = 600.0, 60.0

_CONF = """\
ClusterName=test
SlurmctldHost=node1(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has expired: two minutes by default. A busy machine needs some seconds
# to present one, which must still be valid then.
AuthInfo=socket={folder}/munge/socket,cred_expire=30
# A week: what became of a job can be asked for as long as the cluster lasts, however late a busy machine asks. Zero,
# which is said to mean for ever, is taken for two seconds.
MinJobAge=604800
# Slurm takes a job or a node for lost after ten seconds, or two, by default.
BatchStartTimeout=600
MessageTimeout=100
TCPTimeout=60
SlurmdTimeout=600
UnkillableStepTimeout=600
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=1,batch_sched_delay=0
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
KillWait=60
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# $1 is the node's name and what follows is its program.
_AS_NODE = 'hostname "$1"; mount --bind "$2" /etc/hosts; shift 2; exec "$@"'


def missing_programs() -> list[str]:
    """What this machine lacks for a cluster; empty when it can have one."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if not missing and os.geteuid() != 0:
        missing.append("root")
    if not missing and subprocess.run(["unshare", "-mu", "true"], capture_output=True, check=False).returncode:
        missing.append("the right to make namespaces")
    return missing


@contextlib.contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """A cluster while this lasts; the variables that Slurm's commands need to reach it.

    Args:
        folder: an empty directory for everything that it writes; short, since a socket's path may have 107 characters.
    """
    daemons: list[Daemon] = []
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "SLURM_CONF": str(folder / "slurm.conf")}
    # Tests may themselves run in somebody's job.
    for name in [name for name in env if name.startswith(("SLURM_", "SBATCH_", "SRUN_")) and name != "SLURM_CONF"]:
        del env[name]
    try:
        _configure(folder)
        munge = folder / "munge"
        daemons.append(_start(folder, "munged", env, [
            "munged", "--foreground", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        ]))  # fmt: skip
        _wait_for(lambda: (munge / "socket").exists(), "munged", folder, daemons)
        daemons.append(_start(folder, "slurmctld", env, _as_node(folder, "node1", "slurmctld", "-D")))
        for name in NODES:
            daemons.append(_start(folder, f"slurmd-{name}", env, _as_node(folder, name, "slurmd", "-D")))
        _wait_for(lambda: _num_idle(env) == len(NODES), "the nodes", folder, daemons)
        yield env
    finally:
        if daemons:
            subprocess.run(["scancel", f"--user={os.geteuid()}"], env=env, capture_output=True, check=False)
            _wait_until(lambda: _num_jobs(env) == 0, _END_S)
        for daemon in reversed(daemons):
            _end(daemon)


def _configure(folder: Path) -> None:
    for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    (folder / "munge").chmod(0o711)
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    (folder / "hosts").write_text(
        "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in NODES.items())
    )
    controller_port, *ports = _free_ports(1 + len(NODES))
    nodes = "\n".join(
        f"NodeName={name} NodeAddr={address} Port={port} CPUs={CPUS}"
        for (name, address), port in zip(NODES.items(), ports, strict=True)
    )
    (folder / "slurm.conf").write_text(_CONF.format(folder=folder, nodes=nodes, controller_port=controller_port))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in sockets]


def _as_node(folder: Path, name: str, *command: str) -> list[str]:
    return ["unshare", "-mu", "sh", "-ec", _AS_NODE, "sh", name, str(folder / "hosts"), *command]


def _start(folder: Path, name: str, env: dict[str, str], command: Sequence[str]) -> Daemon:
    with (folder / f"{name}.log").open("wb") as log:
        # A test run that is killed takes its cluster with it.
        words = ["setpriv", "--pdeathsig", "TERM", *command]
        return subprocess.Popen(words, env=env, stdout=log, stderr=log, start_new_session=True)


def _num_idle(env: dict[str, str]) -> int:
    answer = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%t"], env=env, capture_output=True, text=True, check=False
    )
    return answer.stdout.split().count("idle")


def _num_jobs(env: dict[str, str]) -> int:
    answer = subprocess.run(["squeue", "--noheader"], env=env, capture_output=True, text=True, check=False)
    return len(answer.stdout.splitlines())


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _wait_for(condition: Callable[[], bool], what: str, folder: Path, daemons: Sequence[Daemon]) -> None:
    _wait_until(lambda: condition() or any(daemon.poll() is not None for daemon in daemons), _START_S)
    if not condition():
        logs = "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in folder.glob("*.log"))
        raise RuntimeError(f"{what} did not come up\n{logs}")


def _end(daemon: Daemon) -> None:
    daemon.terminate()
    try:
        daemon.wait(_END_S)
    except subprocess.TimeoutExpired:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


if __name__ == "__main__":
    place = Path(sys.argv[1]).absolute()
    place.mkdir(parents=True, exist_ok=True)
    with running(place) as variables:
        print(f"export SLURM_CONF={variables['SLURM_CONF']}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.sigwait([signal.SIGINT, signal.SIGTERM])
