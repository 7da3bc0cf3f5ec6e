"""What the starting model makes of rows, computed once before training, stored as an artifact and reused.

No second model is in memory during training. The artifact is found by the fingerprints of model and tokens, and by the
arithmetic of training, as reference log-probabilities are.
"""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from pipelines.configs.anchors import StartOutputsConfig
from pipelines.configs.train import TrainConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import is_main, on_main
from pipelines.core.making import Wanted, find, make
from pipelines.models.four_bits import arithmetic_of
from pipelines.models.loading import load_training_model
from pipelines.models.reference import ModelSource
from pipelines.passes.distributions import batches_by_size, places_of
from pipelines.passes.engine import reference_engine, zero3_loading
from pipelines.passes.states import at_places, bare_model, padded, pass_for_states
from pipelines.passes.tiled_head import Head, log_probs_at_places
from pipelines.samples.states import StoredStates, write_states
from pipelines.samples.storage import StoredLogProbs, write_log_probs
from pipelines.samples.tokens import Tokens
from pipelines.sampling.expectations import LOG_PROBS, Expectations, Look, by_name

FOLDER: Final = "anchor-start"
KIND: Final = "anchor-start"
_PARTS: Final = "parts"


def start_states(
    rows: Sequence[Sequence[int]],
    config: TrainConfig,
    source: ModelSource,
    ds_config: dict[str, Any] | None,
    device: torch.device,
) -> StoredStates:
    """The states that the starting model's head reads at all positions of rows. Collective.

    Args:
        rows: the token ids of each row.
        config: the run's options; the parent directory of ``config.out`` holds the store.
        source: the starting model.
        ds_config: DeepSpeed's configuration or None: the model is spread over ranks as in training.
        device: the device to compute on.
    """

    def write(folder: Path, found: Expectations, k: int) -> None:
        write_states(folder, [len(row) for row in rows], found.rows)

    tokens = [(row, row) for row in rows]
    return StoredStates(_stored(tokens, 0, ["states"], write, config, source, ds_config, device))


def start_log_probs(
    rows: Sequence[Sequence[int]],
    config: TrainConfig,
    source: ModelSource,
    ds_config: dict[str, Any] | None,
    device: torch.device,
) -> StoredLogProbs:
    """What the starting model expects at all positions of rows but the last ones. Collective.

    Args:
        rows: the token ids of each row, at least two of each.
        config: the run's options, among them the number of tokens to keep; see :func:`start_states`.
        source: the starting model.
        ds_config: DeepSpeed's configuration or None.
        device: the device to compute on.
    """

    def write(folder: Path, found: Expectations, k: int) -> None:
        write_log_probs(folder, found.tokens, k, found.rows)

    tokens = [(row, row) for row in rows]
    k = config.anchor_log_probs
    return StoredLogProbs(_stored(tokens, k, LOG_PROBS, write, config, source, ds_config, device))


def _stored(
    rows: Sequence[Tokens],
    k: int,
    names: Sequence[str],
    write: Callable[[Path, Expectations, int], None],
    config: TrainConfig,
    source: ModelSource,
    ds_config: dict[str, Any] | None,
    device: torch.device,
) -> Path:
    """The folder of the artifact, which is made if it is not there."""
    options = StartOutputsConfig(
        tokens=hashlib.sha256(json.dumps([list(ids) for ids, _ in rows]).encode()).hexdigest(),
        log_probs=k,
        precision=arithmetic_of(config),
        held_in_precision=ds_config is not None,
        attention=config.attention,
    )
    records = on_main(source.input_records)
    key = hashlib.sha256((options.identity_hash() + "".join(r.fingerprint for r in records)).encode()).hexdigest()
    target = Path(config.out).absolute().parent / FOLDER / key[:16]
    wanted = Wanted(target, KIND, options, records, keep_partial=True)
    if find(wanted) is not None:
        return target
    _make(wanted, rows, k, names, write, (config, source, ds_config), device)
    gc.collect()
    return target


def _make(
    wanted: Wanted,
    rows: Sequence[Tokens],
    k: int,
    names: Sequence[str],
    write: Callable[[Path, Expectations, int], None],
    start: tuple[TrainConfig, ModelSource, dict[str, Any] | None],
    device: torch.device,
) -> None:
    config, source, ds_config = start
    with zero3_loading(ds_config):
        model: Any = load_training_model(config, source)
    engine = reference_engine(model, ds_config, batch_size=config.batch_size, precision=config.precision, device=device)
    engine.access.module.eval()
    looked = _look(engine.forward, model, k, device)

    def compute(writer: ArtifactWriter) -> None:
        batches = batches_by_size([len(ids) for ids, _ in rows], config.batch_size, 1)
        folder, identity = writer.path / _PARTS, wanted.config.identity_hash() + source.fingerprint()
        found = Expectations(rows, names, batches=batches, folder=folder, identity=identity, label="starting model")
        found.compute(looked, device, together=ds_config is not None)
        if is_main():
            write(writer.path, found, min(k, _vocabulary(model)))
            shutil.rmtree(folder, ignore_errors=True)
            writer.summary = {"rows": len(rows), "positions": sum(len(ids) for ids, _ in rows)}

    make(wanted, compute)


def _look(forward: Any, model: Any, k: int, device: torch.device) -> Look:
    def look(rows: Sequence[Tokens]) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = []
        places = [places_of(labels) if k else list(range(len(ids))) for ids, labels in rows]
        sizes = [len(of_row) for of_row in places]

        def take(states: Tensor) -> None:
            at = at_places(states, places)
            if not k:
                found.extend({"states": part.clone().cpu()} for part in at.split(sizes))
                return
            top = by_name(log_probs_at_places(at, Head.of(bare_model(model)), k))
            parts = {name: tensor.cpu().split(sizes) for name, tensor in top.items()}
            found.extend({name: parts[name][index].clone() for name in parts} for index in range(len(rows)))

        with torch.no_grad():
            pass_for_states(forward, model, padded([ids for ids, _ in rows], 0, device), take)
        return found

    return look


def _vocabulary(model: Any) -> int:
    head = bare_model(model).get_output_embeddings()
    whole: Any = getattr(head.weight, "ds_shape", head.weight.shape)
    return int(whole[0])
