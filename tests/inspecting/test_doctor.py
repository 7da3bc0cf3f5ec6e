"""doctor: what is there, and the consequence of everything that is not."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from dataclasses import asdict

import pytest

from pipelines.commands import doctor
from pipelines.configs.tools import DoctorConfig
from pipelines.inspecting import machine


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def find(name: str) -> machine.Finding:
    return next(finding for finding in doctor.run(DoctorConfig()) if finding.name == name)


def test_everything_is_looked_at_and_can_be_printed_as_json() -> None:
    findings = doctor.run(DoctorConfig())
    assert {finding.area for finding in findings} == {
        "software", "machine", "devices", "several processes", "cluster", "hub",
    }  # fmt: skip
    assert {finding.name for finding in findings} >= {"torch", "bf16", "gloo", "DeepSpeed", "Slurm", "C++ compiler"}
    json.dumps([asdict(finding) for finding in findings])


def test_whatever_does_not_work_says_why() -> None:
    for finding in doctor.run(DoctorConfig()):
        assert finding.state in ("ok", "info") or finding.consequence, finding


def test_this_environment_has_what_is_needed() -> None:
    assert [finding for finding in doctor.run(DoctorConfig()) if finding.state == "missing"] == []


def test_old_and_absent_packages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.metadata.version

    def version(name: str) -> str:
        if name == "trl":
            raise importlib.metadata.PackageNotFoundError(name)
        return "4.57.1" if name == "transformers" else original(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert find("trl").state == "missing"
    old = find("transformers")
    assert (old.state, old.value) == ("missing", "4.57.1")
    assert "5.0" in old.consequence


@pytest.mark.parametrize(
    ("version", "minimum", "enough"),
    [("2.13.0+cpu", "2.6", True), ("2.5.1", "2.6", False), ("0.9", "0.10", False), ("5.0.0rc1", "5.0", True)],
)
def test_versions_are_compared_as_numbers(version: str, minimum: str, enough: bool) -> None:
    assert (machine._numbers(version) >= machine._numbers(minimum)) is enough


def test_no_compiler_means_no_offload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    finding = find("C++ compiler")
    assert finding.state == "limited"
    assert "--offload" in finding.consequence


def test_a_broken_deepspeed_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.import_module

    def broken(name: str) -> object:
        if name == "deepspeed":
            raise RuntimeError("CUDA_HOME does not exist")
        return original(name)

    monkeypatch.setattr(importlib, "import_module", broken)
    assert find("DeepSpeed").state == "missing"


def test_an_unreachable_hub_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    finding = find("http://127.0.0.1:9")
    assert finding.state == "limited"
    assert "not reachable" in finding.value


def test_slurm_is_found_by_its_command_or_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/srun" if name == "srun" else None)
    assert find("Slurm").value == "available"
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert find("Slurm").value == "job 17"


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (3e12, "3 TB")]
)
def test_sizes_read_well(size: float, text: str) -> None:
    assert machine.size_text(size) == text
