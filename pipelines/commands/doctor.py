"""The work of ``ogpsa doctor``: what this machine has, what would not work on it, and why."""

from __future__ import annotations

from pipelines.configs.tools import DoctorConfig
from pipelines.inspecting.machine import (
    Finding,
    cluster_findings,
    device_findings,
    distributed_findings,
    hub_findings,
    machine_findings,
    software_findings,
)
from pipelines.inspecting.remains import remains_findings


def run(config: DoctorConfig) -> list[Finding]:
    """Look at the machine without changing it; something missing is reported as a finding and never raised."""
    return [
        *software_findings(),
        *machine_findings(),
        *remains_findings(),
        *device_findings(),
        *distributed_findings(),
        *cluster_findings(),
        *hub_findings(),
    ]
