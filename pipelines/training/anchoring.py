"""The losses beside that of the safety rows, made ready from the options before the trainer is built."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from data_registry.core.errors import ConfigError
from data_registry.core.manifest import read_manifest
from pipelines.configs.anchors import Anchors
from pipelines.configs.train import TrainConfig
from pipelines.core.job import is_main, world_size
from pipelines.models.reference import ModelSource
from pipelines.tokens.fitting import Bounds
from pipelines.training.anchor import Anchor
from pipelines.training.beside import Beside
from pipelines.training.data.anchor_schedule import SharedSchedule, rows_per_step
from pipelines.training.data.anchors import AnchorRows
from pipelines.training.data.start_outputs import start_log_probs, start_states
from pipelines.training.prompt_anchor import PromptAnchor

logger = logging.getLogger(__name__)

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Rows:
    """What losses beside that of the safety rows must know of these.

    Attributes:
        prompts: the prompts of the safety rows in tokens.
        others: the prompts of all other rows that are trained on with them.
        per_sample: the number of rows in a sample, more than 1 where rows are packed.
    """

    prompts: Prompts = ()
    others: Prompts = ()
    per_sample: Fraction = field(default_factory=lambda: Fraction(1))


def make_beside(
    config: TrainConfig,
    source: ModelSource,
    ds_config: dict[str, Any] | None,
    tokenizer: Any,
    device: torch.device,
    rows: Rows,
    bounds: Bounds,
) -> Beside | None:
    """The losses that the options ask for, or None. Collective: the starting model is asked for what they need.

    Args:
        config: the options of the command.
        source: the starting model.
        ds_config: DeepSpeed's configuration or None.
        tokenizer: the tokenizer that training uses.
        device: the device to compute on.
        rows: what is known of the safety rows.
        bounds: what rows must keep to; anchor rows that are left out are counted there.

    Raises:
        OgpsaError: the rows of an anchor cannot be used.
    """
    anchors = config.anchors
    anchor = None
    if anchors is not None:
        anchor = _anchor(config, anchors, source, ds_config, tokenizer, device, rows.per_sample, bounds)
    prompts = None
    if config.prompt_anchor > 0:
        distinct = [list(each) for each in dict.fromkeys(tuple(each) for each in rows.prompts if len(each) > 1)]
        if not distinct:
            raise ConfigError("--prompt-anchor: no prompt of the safety data has a place before its last token")
        start = start_log_probs(distinct, config, source, ds_config, device)
        prompts = PromptAnchor(distinct, start, config.prompt_anchor, rows.others)
    return None if anchor is None and prompts is None else Beside(anchor, prompts)


def _anchor(
    config: TrainConfig,
    anchors: Anchors,
    source: ModelSource,
    ds_config: dict[str, Any] | None,
    tokenizer: Any,
    device: torch.device,
    per_sample: Fraction,
    bounds: Bounds,
) -> Anchor:
    paths = list(anchors.paths)
    if anchors.kind != "ce":
        from pipelines.training.data.own_answers import own_answers

        paths = [own_answers(path, config, source, device) for path in paths]
    sets = [AnchorRows(path, anchors.kind, config, tokenizer, bounds) for path in paths]
    mean_square = 1.0
    if anchors.kind == "hidden":
        states = start_states([ids for each in sets for ids in each.token_ids()], config, source, ds_config, device)
        first, mean_square = 0, states.mean_square
        for each in sets:
            each.hold(states, first)
            first += len(each)
    num_safety = config.batch_size * config.accumulation * world_size() * per_sample
    number = rows_per_step(num_safety, anchors.ratio)
    _say_what_is_odd(config, anchors.paths, [len(each) for each in sets], number)
    schedule = SharedSchedule([len(each) for each in sets], anchors.shares, number, config.seed)
    names = [path.name for path in anchors.paths]
    return Anchor(sets, schedule, anchors, names, pad_token_id=int(tokenizer.pad_token_id), mean_square=mean_square)


def _say_what_is_odd(config: TrainConfig, paths: Sequence[Path], sizes: Sequence[int], per_step: int) -> None:
    """Say what is probably not meant: fewer rows than a step takes, and an anchor that holds what training changes."""
    if not is_main():
        return
    if per_step > sum(sizes):
        logger.warning(
            "the anchor has %d rows that can be used and every step takes %d: rows come more than once in a step",
            sum(sizes),
            per_step,
        )
    safety = {read_manifest(path).fingerprint: path for path in config.data}
    for path in paths:
        manifest = read_manifest(path)
        made_from = (manifest.fingerprint, *(record.fingerprint for record in manifest.inputs if record.role == "data"))
        same = next((safety[each] for each in made_from if each in safety), None)
        if same is not None:
            logger.warning(
                "the anchor '%s' has the prompts of the safety data '%s': it holds the model to what training changes",
                path, same,
            )  # fmt: skip
