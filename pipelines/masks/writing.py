"""A mask written: chosen bits joined with other masks, packed into files, described and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipelines.core.progress import Progress
from pipelines.gradients.selection import Cut, score_of
from pipelines.masks import bits
from pipelines.masks.description import CutRecord
from pipelines.masks.parameters import Parameter
from pipelines.masks.records import TensorRecord
from pipelines.masks.scores import Scores
from pipelines.masks.selecting import Choice, Selection
from pipelines.masks.storage import StoredMask, mask_files


@dataclass(frozen=True)
class OtherMasks:
    """Masks that are joined with the chosen weights: S becomes ((S or all of union) and each of intersect) minus minus.

    Attributes:
        union: masks whose weights are added.
        intersect: masks that weights must be in.
        minus: masks whose weights are taken out, last of all.
    """

    union: Sequence[StoredMask] = ()
    intersect: Sequence[StoredMask] = ()
    minus: Sequence[StoredMask] = ()

    def join(self, name: str, start: int, packed: bits.Bytes) -> bits.Bytes:
        """Bytes of a parameter's bits, from byte ``start``, joined with those of the other masks."""
        stop = start + len(packed)
        for mask in self.union:
            packed = packed | mask.packed(name, start, stop)
        for mask in self.intersect:
            packed = packed & mask.packed(name, start, stop)
        for mask in self.minus:
            packed = packed & ~mask.packed(name, start, stop)
        return packed


def write_bits(
    directory: Path, parameters: Sequence[Parameter], chosen: Selection, others: OtherMasks
) -> list[TensorRecord]:
    """Write the bits of all parameters, and say what each tensor has. The scores are read once.

    Args:
        directory: the directory of the artifact being made.
        parameters: all parameters of the model, in canonical order.
        chosen: the selection among those that are eligible.
        others: masks that are joined with it.
    """
    eligible = {parameter.name for parameter in chosen.parameters}
    records = []
    with mask_files(directory, parameters) as files:
        for parameter in parameters:
            files.begin(parameter.name, torch.uint8, (bits.num_bytes(parameter.numel),))
            selected, start = 0, 0
            of_parameter = chosen.flags(parameter) if parameter.name in eligible else _no_flags(parameter)
            for packed in _packed(of_parameter):
                joined = others.join(parameter.name, start, packed)
                files.write(torch.from_numpy(joined))
                selected, start = selected + bits.count(joined), start + len(joined)
            records.append(_record(parameter, selected, chosen))
    return records


def _packed(flags: Iterator[bits.Flags]) -> Iterator[bits.Bytes]:
    packer = bits.Packer()
    for block in flags:
        yield packer.add(block)
    yield packer.finish()


def _no_flags(parameter: Parameter) -> Iterator[bits.Flags]:
    block = 1 << 20
    for start in range(0, parameter.numel, block):
        yield np.zeros(min(block, parameter.numel - start), dtype=np.bool_)


def _record(parameter: Parameter, selected: int, chosen: Selection) -> TensorRecord:
    found = chosen.found.get(parameter.name)
    quantiles: list[float | None] = [None, None, None] if found is None else [*found.quantiles]
    return TensorRecord(
        parameter.name,
        parameter.numel,
        selected,
        selected / parameter.numel if parameter.numel else 0.0,
        None if found is None else found.largest,
        *quantiles,
    )


def cut_records(chosen: Selection, *, skipped: bool) -> list[CutRecord]:
    """Where the chosen weights end; or, of a band, where they begin, with ``skipped``."""
    cuts: list[tuple[str, Cut]] = [(name, begin if skipped else end) for name, begin, end in chosen.groups]
    return [
        CutRecord(
            group=name,
            threshold=score_of(cut.key, least=chosen.choice.least).hex(),
            above=cut.above,
            ties_taken=cut.taken,
        )
        for name, cut in cuts
        if cut.count
    ]


@contextmanager
def selection_of(scores: Scores, parameters: Sequence[Parameter], choice: Choice, workers: int) -> Iterator[Selection]:
    """The selection with its progress shown, also while its flags are read within the context."""
    total = 3 * sum(parameter.numel for parameter in parameters)
    with Progress("choosing", total=total, unit="weights") as progress:
        yield Selection(scores, parameters, choice, workers=workers, progress=progress.advance)
