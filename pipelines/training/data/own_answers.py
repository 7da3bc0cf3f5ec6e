"""A model's own answers to the prompts of an anchor's data set, made before training and kept for the next run."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path
from typing import Final

import torch

from data_registry.prepared import SAMPLES, load_prepared
from pipelines.configs.sample import SampleConfig
from pipelines.configs.train import TrainConfig
from pipelines.core.job import on_main
from pipelines.core.making import Wanted, make
from pipelines.models.reference import ModelSource
from pipelines.sampling.inputs import sample_inputs
from pipelines.sampling.making import make_samples

FOLDER: Final = "anchor-samples"


def own_answers(path: Path, config: TrainConfig, source: ModelSource, device: torch.device) -> Path:
    """Samples of the starting model for the prompts of ``path``, which is given back if it is samples. Collective.

    They are those that ``ogpsa sample`` makes with ``--log-probs``, and are found again by all that they depend on.

    Args:
        path: prepared data of either task, or samples.
        config: the run's options; the parent directory of ``config.out`` holds the samples.
        source: the starting model.
        device: the device to compute on.
    """
    if on_main(lambda: load_prepared(path)[1].kind) == SAMPLES:
        return path
    options = {
        "model": config.model,
        "revision": config.revision,
        "data": path,
        "log_probs": config.anchor_log_probs,
        "precision": config.precision,
        "chat_template": config.chat_template,
        "trust_remote_code": config.trust_remote_code,
    }
    sampling = SampleConfig(out=Path("."), **options)
    inputs = on_main(lambda: sample_inputs(sampling, source))
    depends_on = sampling.identity_hash() + "".join(record.fingerprint for record in inputs)
    key = hashlib.sha256(depends_on.encode()).hexdigest()
    target = Path(config.out).absolute().parent / FOLDER / key[:16]
    sampling = SampleConfig(out=target, **options)
    wanted = Wanted(target, SAMPLES, sampling, inputs, keep_partial=True)
    make(wanted, lambda writer: make_samples(sampling, source, device, writer))
    gc.collect()
    return target
