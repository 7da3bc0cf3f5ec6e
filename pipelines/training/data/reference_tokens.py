"""Reference log-probabilities of unwanted answers token by token: computed once, stored as an artifact and reused."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from data_registry.core import stopping
from data_registry.core.manifest import InputRecord
from pipelines.configs.train import ReferenceLogpsConfig, TrainConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import is_main, rank, world_size
from pipelines.core.making import Wanted, find, make
from pipelines.core.progress import Progress
from pipelines.engine import processes
from pipelines.models.loading import load_training_model
from pipelines.models.reference import ModelSource
from pipelines.passes.dealing import deal
from pipelines.passes.engine import reference_engine, zero3_loading
from pipelines.passes.log_probs import add_loss_head, token_log_probs
from pipelines.passes.states import padded
from pipelines.tokens.labels import IGNORED
from pipelines.tokens.pairs import Pair
from pipelines.training.data.reference_log_probs import FILE, FOLDER, KIND

_COLUMN = "rejected_tokens"


def reference_tokens(
    pairs: Sequence[Pair],
    config: TrainConfig,
    source: ModelSource,
    inputs: Sequence[InputRecord],
    ds_config: dict[str, Any] | None,
    pad_token_id: int,
    device: torch.device,
) -> list[list[float]]:
    """For each pair the starting model's log-probabilities of the rejected answer's tokens. Collective.

    Args:
        pairs: the tokenised pairs, in the order of the data set.
        config: the run's options; the parent directory of ``config.out`` holds the store.
        source: the starting model.
        inputs: records of model and data.
        ds_config: DeepSpeed's configuration or None: the model is spread over ranks as in training.
        pad_token_id: the id of the token that pads batches.
        device: the device to compute on.
    """
    rows = [(pair["prompt_ids"], pair["rejected_ids"]) for pair in pairs]
    records = [record for record in inputs if record.role in ("model", "data")]
    options = ReferenceLogpsConfig(
        tokens=hashlib.sha256(json.dumps(["rejected", rows]).encode()).hexdigest(),
        precision=config.precision,
        held_in_precision=ds_config is not None,
        attention=config.attention,
    )
    key = hashlib.sha256((options.identity_hash() + "".join(r.fingerprint for r in records)).encode()).hexdigest()
    target = Path(config.out).absolute().parent / FOLDER / key[:16]
    wanted = Wanted(target, KIND, options, records)
    if find(wanted) is None:
        with zero3_loading(ds_config):
            model: Any = load_training_model(config, source)
        add_loss_head(model.get_base_model() if source.is_adapter else model)
        engine = reference_engine(
            model, ds_config, batch_size=config.batch_size, precision=config.precision, device=device
        )
        values = _values(engine.forward, engine.access.module, rows, config.batch_size, pad_token_id, device)
        del engine, model
        gc.collect()
        make(wanted, lambda writer: _write(writer, values))
    found: list[list[float]] = pq.read_table(target / FILE)[_COLUMN].to_pylist()
    return found


def _write(writer: ArtifactWriter, values: Sequence[Sequence[float]]) -> None:
    if is_main():
        pq.write_table(pa.table({_COLUMN: pa.array(values, pa.list_(pa.float32()))}), writer.path / FILE)
        writer.summary = {"answers": len(values), "tokens": sum(map(len, values))}


def _values(
    forward: Any,
    module: torch.nn.Module,
    rows: Sequence[tuple[list[int], list[int]]],
    batch_size: int,
    pad_token_id: int,
    device: torch.device,
) -> list[list[float]]:
    parts = list(
        deal(
            range(len(rows)), batch_size, length=lambda index: len(rows[index][1]), rank=rank(), world_size=world_size()
        )
    )
    mine: dict[int, list[float]] = {}
    module.eval()
    progress = Progress("reference log-probs", total=len(parts), unit="batches")
    with torch.no_grad(), stopping.deferred(), progress:
        for indices, weight in parts:
            processes.stop_point(device)
            batch = padded([[*rows[index][0], *rows[index][1]] for index in indices], pad_token_id, device)
            labels = torch.full_like(batch["input_ids"], IGNORED)
            for place, index in enumerate(indices):
                prompt, answer = rows[index]
                labels[place, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer, device=device)
            log_probs, inside = token_log_probs(forward, {**batch, "labels": labels})
            if weight:
                mine |= {index: log_probs[place][inside[place]].tolist() for place, index in enumerate(indices)}
            progress.advance()
        # A signal to stop may have arrived during the last batch.
        processes.stop_point(device)
    everything: list[Any] = [mine]
    if world_size() > 1:
        everything = [None] * world_size()
        dist.all_gather_object(everything, mine)
    by_index = {index: values for part in everything for index, values in part.items()}
    return [by_index[index] for index in range(len(rows))]
