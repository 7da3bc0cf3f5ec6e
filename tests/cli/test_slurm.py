"""What srun tells its tasks, translated; and environments that must not be mistaken for it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_registry.core.errors import ConfigError
from ogpsa_cli.launch import processes, slurm

TASK = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_JOB_NODELIST": "gpu[05-08]",
}
BATCH_SCRIPT = {
    "SLURM_JOB_ID": "123456",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_JOB_NODELIST": "gpu[05-08]",
}
OURS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The process's environment without anything that a launcher or Slurm sets; restored afterwards."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS and not name.startswith("SLURM_")}
    clean.pop("CUDA_VISIBLE_DEVICES", None)
    monkeypatch.setattr(os, "environ", clean)
    return clean


def test_a_task_is_translated(environ: dict[str, str]) -> None:
    environ.update(TASK)
    processes.settle_environment()
    assert {name: environ[name] for name in OURS} == {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": str(20000 + 123456 % 12000),
    }
    assert processes.is_distributed()


def test_the_port_depends_on_job_and_step_alone(environ: dict[str, str]) -> None:
    for rank in range(4):
        assert slurm.translate({**TASK, "SLURM_PROCID": str(rank)})["MASTER_PORT"] == "23456"
    assert slurm.translate({**TASK, "SLURM_JOB_ID": "123457"})["MASTER_PORT"] == "23457"
    assert slurm.translate({**TASK, "SLURM_STEP_ID": "1"})["MASTER_PORT"] == "23557"


@given(st.integers(1, 10**8), st.integers(0, 1000))
def test_ports_differ_and_are_none_that_systems_hand_out(job: int, step: int) -> None:
    found = slurm.ports({**TASK, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})
    assert len(set(found)) == len(found) == 12
    assert all(20000 <= port < 32000 for port in found)


def test_the_users_address_and_port_are_kept() -> None:
    translated = slurm.translate({**TASK, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4242"})
    assert (translated["MASTER_ADDR"], translated["MASTER_PORT"]) == ("10.0.0.1", "4242")


def test_a_batch_script_is_alone_although_it_has_ntasks_and_procid(environ: dict[str, str]) -> None:
    environ.update(BATCH_SCRIPT)
    processes.settle_environment()
    assert not processes.is_distributed()
    assert not set(OURS) & set(environ)


def test_a_step_of_one_task_is_alone(environ: dict[str, str]) -> None:
    environ.update({**TASK, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"})
    processes.settle_environment()
    assert not processes.is_distributed()


def test_older_slurm_names_the_step_differently(environ: dict[str, str]) -> None:
    environ.update({name: value for name, value in TASK.items() if name != "SLURM_STEP_ID"})
    environ["SLURM_STEPID"] = "0"
    processes.settle_environment()
    assert environ["RANK"] == "3"


def test_torchrun_inside_a_step_wins(environ: dict[str, str]) -> None:
    torchrun = {
        "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "host", "MASTER_PORT": "29500",
    }  # fmt: skip
    environ.update(TASK | torchrun)
    processes.settle_environment()
    assert {name: environ[name] for name in OURS} == torchrun


def test_one_visible_gpu_is_number_zero() -> None:
    assert slurm.translate({**TASK, "CUDA_VISIBLE_DEVICES": "1"})["LOCAL_RANK"] == "0"
    assert slurm.translate({**TASK, "CUDA_VISIBLE_DEVICES": "0,1"})["LOCAL_RANK"] == "1"
    assert slurm.translate({**TASK, "CUDA_VISIBLE_DEVICES": ""})["LOCAL_RANK"] == "1"


@pytest.mark.parametrize(
    ("per_node", "node", "expected"),
    [("2(x2)", "1", "2"), ("4", "0", "4"), ("2(x2),1", "2", "1"), ("3,1", "1", "1"), ("", "0", "4")],
)
def test_tasks_of_this_node(per_node: str, node: str, expected: str) -> None:
    env = {**TASK, "SLURM_STEP_TASKS_PER_NODE": per_node, "SLURM_NODEID": node}
    assert slurm.translate(env)["LOCAL_WORLD_SIZE"] == expected


@pytest.mark.parametrize(
    ("nodelist", "hosts"),
    [
        ("node1", ["node1"]),
        ("node[01-03,07]", ["node01", "node02", "node03", "node07"]),
        ("node[09-11]", ["node09", "node10", "node11"]),
        ("a,b[1-2],c", ["a", "b1", "b2", "c"]),
        ("a[1,3]-ib,b", ["a1-ib", "a3-ib", "b"]),
        ("rack[1-2]node[1-2]", ["rack1node1", "rack1node2", "rack2node1", "rack2node2"]),
        ("gpu-a-[001-002].cluster", ["gpu-a-001.cluster", "gpu-a-002.cluster"]),
        ("10.0.0.1", ["10.0.0.1"]),
        ("", []),
    ],
)
def test_node_lists_are_expanded(nodelist: str, hosts: list[str]) -> None:
    assert slurm.expand_hosts(nodelist) == hosts


@given(st.integers(0, 500), st.integers(0, 60), st.integers(1, 4))
def test_ranges_keep_their_width(first: int, length: int, width: int) -> None:
    last = first + length
    text = f"n[{first:0{width}d}-{last:0{width}d}]"
    assert slurm.expand_hosts(text) == [f"n{number:0{width}d}" for number in range(first, last + 1)]


def test_damaged_variables_are_named() -> None:
    with pytest.raises(ConfigError, match="SLURM_PROCID is 'x'"):
        slurm.translate({**TASK, "SLURM_PROCID": "x"})
    with pytest.raises(ConfigError, match="node list is missing"):
        slurm.translate({**TASK, "SLURM_STEP_NODELIST": "", "SLURM_JOB_NODELIST": ""})


@pytest.mark.parametrize("leftover", [{"WORLD_SIZE": "8"}, {"RANK": "1"}, {"MASTER_ADDR": "x", "MASTER_PORT": "1"}])
def test_leftovers_do_not_make_a_lone_command_wait(environ: dict[str, str], leftover: dict[str, str]) -> None:
    environ.update(leftover)
    processes.settle_environment()
    assert not set(OURS) & set(environ)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE is 2"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR, MASTER_PORT, LOCAL_RANK are not"),
    ],
)
def test_contradictions_are_refused(environ: dict[str, str], variables: dict[str, str], expected: str) -> None:
    environ.update(variables)
    with pytest.raises(ConfigError, match=expected):
        processes.settle_environment()


@pytest.mark.parametrize(
    ("visible", "expected"), [("", 1), ("-1", 1), ("0", 1), ("0,1,2", 3), ("2,-1,3", 1), ("GPU-ab,GPU-cd", 2)]
)
def test_visible_devices_are_counted(environ: dict[str, str], visible: str, expected: int) -> None:
    environ["CUDA_VISIBLE_DEVICES"] = visible
    assert processes.num_devices() == expected
