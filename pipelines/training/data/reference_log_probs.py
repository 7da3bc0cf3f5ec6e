"""Reference log-probabilities of DPO: computed once with the starting model, stored as an artifact and reused.

No second model is in memory during training. The artifact is found by the fingerprints of model, data and tokens:
a run with another model, template, data set, length or arithmetic never reads the wrong numbers.
"""

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

from data_registry.core.manifest import InputRecord
from pipelines.configs.train import ReferenceLogpsConfig, TokenReferenceLogpsConfig, TrainConfig
from pipelines.core.artifact import ArtifactWriter
from pipelines.core.job import is_main
from pipelines.core.making import Wanted, find, make
from pipelines.models.four_bits import arithmetic_of
from pipelines.models.loading import load_training_model
from pipelines.models.reference import ModelSource
from pipelines.passes.engine import reference_engine, zero3_loading
from pipelines.passes.log_probs import (
    PairLogProbs,
    add_loss_head,
    completion_token_values,
    completion_values,
)
from pipelines.tokens.pairs import SIDES, Pair

FOLDER = "reference-logps"
FILE = "logps.parquet"
KIND = "reference-logps"
_TOKENS = "{}_tokens"


def with_reference_logps(
    pairs: Sequence[Pair],
    config: TrainConfig,
    source: ModelSource,
    inputs: Sequence[InputRecord],
    ds_config: dict[str, Any] | None,
    pad_token_id: int,
    device: torch.device,
    *,
    per_token: bool = False,
    sides: Sequence[str] = SIDES,
) -> list[Pair]:
    """The pairs with ``ref_chosen_logps`` and ``ref_rejected_logps``, from the store or computed now. Collective.

    Those of single tokens are in ``ref_chosen_token_logps`` and ``ref_rejected_token_logps``, as long as the
    completions, where they are asked for. They have an artifact of their own, with the same sums.

    Args:
        pairs: the tokenised pairs, in the order of the data set.
        config: the run's options; the parent directory of ``config.out`` holds the store.
        source: the starting model.
        inputs: records of model and data.
        ds_config: DeepSpeed's configuration or None: the model is spread over ranks as in training.
        pad_token_id: the id of the token that pads batches.
        device: the device to compute on.
        per_token: whether those of single tokens are needed too.
        sides: the sides that are needed, of ``chosen`` and ``rejected``; only where those of single tokens are.
    """
    records = [record for record in inputs if record.role in ("model", "data")]
    options = (TokenReferenceLogpsConfig if per_token else ReferenceLogpsConfig)(
        tokens=_hash_tokens(pairs, sides),
        precision=arithmetic_of(config),
        held_in_precision=ds_config is not None,
        attention=config.attention,
    )
    key = hashlib.sha256((options.identity_hash() + "".join(r.fingerprint for r in records)).encode()).hexdigest()
    target = Path(config.out).absolute().parent / FOLDER / key[:16]
    wanted = Wanted(target, KIND, options, records)
    if find(wanted) is None:
        values = _compute(pairs, config, source, ds_config, pad_token_id, device, per_token, sides)
        make(wanted, lambda writer: _write(writer, values, sides))
    table = pq.read_table(target / FILE).to_pydict()
    columns = {f"ref_{side}_logps": table[side] for side in sides}
    if per_token:
        columns |= {f"ref_{side}_token_logps": table[_TOKENS.format(side)] for side in sides}
    return [{**pair, **{name: values[index] for name, values in columns.items()}} for index, pair in enumerate(pairs)]


def eval_inputs(inputs: Sequence[InputRecord]) -> list[InputRecord]:
    """The records of a run's inputs, with the data set of its held-out pairs in place of the one trained on."""
    return [
        record.model_copy(update={"role": "data"}) if record.role == "eval-data" else record
        for record in inputs
        if record.role != "data"
    ]


def _hash_tokens(pairs: Sequence[Pair], sides: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps([pair["prompt_ids"], *(pair[f"{side}_ids"] for side in sides)]).encode())
    return digest.hexdigest()


def _write(writer: ArtifactWriter, values: Sequence[PairLogProbs], sides: Sequence[str]) -> None:
    if not is_main():
        return
    columns = {side: pa.array([pair.sums[index] for pair in values], pa.float64()) for index, side in enumerate(sides)}
    for index, side in enumerate(sides):
        tokens = [pair.tokens[index] for pair in values if pair.tokens is not None]
        if tokens:
            columns[_TOKENS.format(side)] = pa.array(tokens, pa.list_(pa.float32()))
    pq.write_table(pa.table(columns), writer.path / FILE)
    writer.summary = {"pairs": len(values)}


def _compute(
    pairs: Sequence[Pair],
    config: TrainConfig,
    source: ModelSource,
    ds_config: dict[str, Any] | None,
    pad_token_id: int,
    device: torch.device,
    per_token: bool,
    sides: Sequence[str],
) -> list[PairLogProbs]:
    with zero3_loading(ds_config):
        model: Any = load_training_model(config, source)
    add_loss_head(model.get_base_model() if source.is_adapter else model)
    engine = reference_engine(model, ds_config, batch_size=config.batch_size, precision=config.precision, device=device)
    arguments = (engine.forward, engine.access.module, pairs, config.batch_size, pad_token_id, device)
    if per_token:
        values = completion_token_values(*arguments, sides)
    else:
        values = [PairLogProbs(sums) for sums in completion_values(*arguments)]
    del engine, model
    gc.collect()
    return values
