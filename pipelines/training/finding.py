"""A finished run found again, before anything is imported that training alone needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from data_registry.core.errors import OgpsaError
from data_registry.core.manifest import Manifest, is_artifact, read_manifest
from pipelines.configs.train import TrainConfig
from pipelines.core import environment
from pipelines.core.job import on_main
from pipelines.core.looking import end_if_looking
from pipelines.core.making import Made, Wanted, find
from pipelines.engine import joining
from pipelines.models.reference import resolve_model
from pipelines.training.checkpoints import storage as checkpoint
from pipelines.training.inputs import training_inputs

KIND: Final = "run"
# What these say has no part in what the trainer's own configuration accepts.
_APART: Final = ("overwrite", "dry_run", "num_procs")
_GPU_NAMES: Final = Path("/proc/driver/nvidia/gpus")


def find_run(config: TrainConfig, *, task: str) -> Made | None:
    """The run, if it is there already and that can be told without the trainer; else None. Collective.

    Training first lets the trainer's own configuration check the options that it takes. Where a run lies at ``--out``
    that was made with these very options in this very environment, they were accepted then, and the rest of the rule
    is that of training: the same inputs, and whole files. In all other cases the answer is left to training.

    Args:
        config: the command's options.
        task: the task of the data set: ``"sft"`` or ``"preference"``.

    Raises:
        OgpsaError: an input cannot be used, or was changed since.
        WouldWork: the command only looks, and the answer is left to training.
    """
    joining.join()
    config = on_main(lambda: config.settled())
    if not on_main(lambda: _is_settled(config)):
        end_if_looking()
        return None
    source = on_main(lambda: resolve_model(config.model, revision=config.revision))
    inputs = on_main(lambda: training_inputs(config, source, task=task))
    made = find(Wanted(config.out, KIND, config, inputs))
    if made is not None:
        on_main(lambda: checkpoint.remove_all(config.out))
    return made


def _is_settled(config: TrainConfig) -> bool:
    """Whether the trainer has accepted these very options already, in this environment, and nothing is to be pushed."""
    if config.push_to_hub is not None:
        return False
    try:
        manifest = read_manifest(config.out) if is_artifact(config.out) else None
    except OgpsaError:
        return False
    if manifest is None or manifest.kind != KIND or config.overwrite:
        return False
    recorded, wanted = ({key: value for key, value in values.items() if key not in _APART}
                        for values in (manifest.config, config.recorded()))  # fmt: skip
    return recorded == wanted and _is_here(manifest)


def _is_here(manifest: Manifest) -> bool:
    """Whether an artifact was made by these versions, on such devices."""
    made: dict[str, Any] = manifest.environment
    return (
        manifest.tool_version == environment.tool_version()
        and made.get("packages") == environment.package_versions()
        and made.get("python") == environment.describe_python()
        and made.get("commit") == environment.git_commit()
        and sorted(set(made.get("devices") or ())) == _gpu_names()
        # Settings of accelerate reach the trainer's configuration by such variables.
        and not any(name.startswith("ACCELERATE_") for name in os.environ)
    )


def _gpu_names() -> list[str]:
    """The names of this machine's visible GPUs as the driver tells them, each once; none if they are hidden."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() in ("", "-1"):
        return []
    names = set()
    for file in _GPU_NAMES.glob("*/information"):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        names |= {line.partition(":")[2].strip() for line in lines if line.startswith("Model:")}
    return sorted(names)
