"""Options of ``--dry-run`` that ask for the memory of a run on another cluster."""

from __future__ import annotations

from pipelines.configs.common import EngineConfig, LoraConfig
from pipelines.core.config import option


class PlannedConfig(EngineConfig, LoraConfig):
    """What a run's memory depends on, and the cluster that it is planned for."""

    plan_ranks: int | None = option(
        None,
        "With --dry-run: show the memory of each of so many processes, whatever this machine has.",
        panel="Processes",
        runtime=True,
        needs="dry_run",
        ge=1,
    )
    plan_gpu_memory: float | None = option(
        None,
        "With --dry-run: the memory of one GPU in GiB, for the smallest cluster that holds the run; 80 by default.",
        panel="Processes",
        runtime=True,
        needs="dry_run",
        gt=0,
    )
