"""Log-probabilities of labelled tokens by a model under any engine, by all processes and stored batch by batch.

Each answer is forced on the model token by token: a token's log-probability is the one that the model gives it behind
the tokens before it in its row.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from data_registry.core.errors import NumericsError
from pipelines.configs.score_tokens import ScoreTokensConfig
from pipelines.core.job import on_main
from pipelines.engine import processes
from pipelines.engine.deepspeed_config import deepspeed_config
from pipelines.models.loading import load_training_model
from pipelines.models.reference import ModelSource
from pipelines.passes.distributions import batches_by_size
from pipelines.passes.engine import reference_engine, zero3_loading
from pipelines.passes.log_probs import add_loss_head, token_log_probs
from pipelines.passes.states import padded
from pipelines.samples.tokens import Tokens
from pipelines.sampling.expectations import Expectations, Look
from pipelines.token_weights.storage import Numbers
from pipelines.tokens.labels import IGNORED

_NAME: Final = "log_probs"


def label_scores(
    rows: Sequence[Tokens], config: ScoreTokensConfig, source: ModelSource, device: torch.device, folder: Path
) -> list[Numbers]:
    """For each row the log-probabilities of its labelled tokens, in order, float32. Collective.

    Args:
        rows: for each row its tokens and labels.
        config: the command's options.
        source: the model.
        device: the device to compute on.
        folder: where batches are kept until the artifact is finished; the same on all processes.

    Returns:
        One array for each row on the first process, nothing on the others.

    Raises:
        InputError: the model cannot be loaded.
        NumericsError: a log-probability is not finite.
        Preempted: a process was asked to stop; what was computed is stored.
    """
    ds_config = deepspeed_config(config, on_cpu=device.type == "cpu")
    if ds_config is not None:
        processes.start_deepspeed()
    with zero3_loading(ds_config):
        model: Any = load_training_model(config, source)
    add_loss_head(model.get_base_model() if source.is_adapter else model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    engine = reference_engine(model, ds_config, batch_size=config.batch_size, precision=config.precision, device=device)
    engine.access.module.eval()
    # The loss head works in tiles, so that the vocabulary sets no limit to a batch.
    batches = batches_by_size([len(ids) for ids, _ in rows], config.batch_size, 1)
    found = Expectations(
        rows, [_NAME], batches=batches, folder=folder, label="token scores",
        identity=json.dumps([source.fingerprint(), config.precision, ds_config is not None, config.attention]),
    )  # fmt: skip
    found.compute(_look(engine.forward, device), device, together=ds_config is not None)
    del engine, model
    gc.collect()
    scores: list[Numbers] = []
    on_main(lambda: scores.extend(_finite(found, source, folder)))
    return scores


def _finite(found: Expectations, source: ModelSource, folder: Path) -> list[Numbers]:
    """The log-probabilities of all rows; of a model that gives no numbers nothing is kept for another attempt."""
    scores: list[Numbers] = [row[_NAME].numpy() for row in found.rows()]
    broken = next((number for number, of_row in enumerate(scores) if not np.isfinite(of_row).all()), None)
    if broken is None:
        return scores
    shutil.rmtree(folder, ignore_errors=True)
    raise NumericsError(
        f"'{source.path_or_id}' gives a token a probability that is no number",
        where=f"answer {broken}",
        fix="look whether its weights are finite, or compute with --precision fp32",
    )


def _look(forward: Any, device: torch.device) -> Look:
    def look(rows: Sequence[Tokens]) -> list[dict[str, Tensor]]:
        batch = padded([ids for ids, _ in rows], 0, device)
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for index, (_, of_row) in enumerate(rows):
            labels[index, : len(of_row)] = torch.tensor(of_row)
        with torch.no_grad():
            log_probs, labelled = token_log_probs(forward, {**batch, "labels": labels})
        return [{_NAME: log_probs[index][labelled[index]].float().cpu()} for index in range(len(rows))]

    return look
