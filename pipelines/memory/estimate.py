"""Bytes on each rank, by term: what stays from step to step, and what is there in one part of a step alone.

The engines' own terms follow DeepSpeed 0.19 and torch; docs/memory.md has the formulas, and how far measured peaks are
from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pipelines.memory.activations import Held
from pipelines.memory.shape import ModelShape

Part = Literal["always", "passes", "step", "refresh"]

CONTEXT_BYTES: Final = 0.8 * 2**30
"""A usual figure for an accelerator's context, its libraries and their workspaces."""
SUB_GROUP: Final = 1e9
"""Elements that the optimizer of ZeRO 3 steps at a time (``sub_group_size``)."""


@dataclass(frozen=True)
class Engine:
    """How weights, gradients and optimizer state are spread.

    Attributes:
        stage: the ZeRO stage; None without DeepSpeed.
        ranks: the number of data-parallel processes.
        bf16: whether the arithmetic is bf16.
        wide_sums: whether gradients are summed in fp32 where weights are held in bf16.
        offload: whether the optimizer's state lies in the host's memory.
        bucket: elements of the buffer through which gradients are reduced.
        gathered: the most elements that ZeRO 3 holds gathered at once.
        on_accelerator: whether ranks compute on accelerators.
        trains: whether there is an optimizer with state; otherwise only gradients are computed.
    """

    stage: int | None
    ranks: int
    bf16: bool
    wide_sums: bool
    offload: bool = False
    bucket: float = 5e8
    gathered: float = 1e9
    on_accelerator: bool = True
    trains: bool = True

    @property
    def width(self) -> int:
        """Bytes of a weight as the model holds it."""
        return 2 if self.bf16 and self.stage is not None else 4

    @property
    def shared(self) -> int:
        """Over how many ranks the optimizer's state is spread."""
        return self.ranks if (self.stage or 0) >= 1 else 1


@dataclass(frozen=True)
class Edits:
    """What the edits of a step hold.

    Attributes:
        rows: the number of rows of the basis; 0 without one.
        row_elements: elements of one row.
        row_width: bytes of one of them.
        keeps_all: whether weights from before the optimizer's step are kept of everything at once.
        keeps: whether they are kept at all, in every step or in those that are logged.
        keeps_each_step: whether they are kept in every step; on a processor their place is then held between steps.
        round_elements: how many are kept at once of several tensors.
        held_elements: the same where the compute device is a processor, and how many are held there between steps.
        holds_rows: whether the rows are in use, and not only being computed.
        masked: whether a mask marks what is trained.
        mask_share: the share of the weights that a mask lets move.
        tracks_change: whether the start of all weights is kept.
    """

    rows: int = 0
    row_elements: int = 0
    row_width: int = 4
    keeps_all: bool = False
    keeps: bool = False
    keeps_each_step: bool = False
    round_elements: int = 1 << 26
    held_elements: int = 1 << 24
    holds_rows: bool = True
    masked: bool = False
    mask_share: float = 1.0
    tracks_change: bool = False


@dataclass(frozen=True)
class Term:
    """A part of what a rank holds.

    Attributes:
        name: what it is.
        device: bytes in the memory of the rank's device.
        host: bytes in the memory of its machine.
        part: the part of a step in which it is held.
    """

    name: str
    device: float
    host: float = 0.0
    part: Part = "always"


@dataclass(frozen=True)
class Estimate:
    """All terms of a rank."""

    terms: Sequence[Term]

    @property
    def device(self) -> float:
        """The most that a rank's device holds at once."""
        return self.of("always") + max(self.of(part) for part in ("passes", "step", "refresh"))

    @property
    def host(self) -> float:
        """What a rank keeps in its machine's memory for lack of place on the device."""
        return sum(term.host for term in self.terms)

    @property
    def fullest(self) -> str:
        """The part of a step in which the device holds most."""
        return max(("passes", "step", "refresh"), key=self.of)

    def of(self, part: str) -> float:
        """The device bytes that are held in one part of a step alone, or always."""
        return sum(term.device for term in self.terms if term.part == part)


def estimate(
    shape: ModelShape,
    engine: Engine,
    *,
    edits: Edits,
    passes: Held | None,
    refresh: Held | None = None,
    accumulates: bool = True,
) -> Estimate:
    """What a rank holds.

    Args:
        shape: the model's tensors.
        engine: how they are spread.
        edits: the edits of a step.
        passes: what forward and backward pass of a micro-batch hold; None where nothing is trained.
        refresh: those of a reference pass; None where there is none.
        accumulates: whether a step has several micro-batches.
    """
    gradients = _gradients(shape, engine)
    terms = [*_kept(shape, engine), *_edits(shape, engine, edits)]
    if passes is not None:
        terms += _passes(shape, engine, "passes", passes)
        early = engine.stage is None and not accumulates
        terms.append(Term("gradients", _beside(passes, gradients) if early else gradients, part="passes"))
    if engine.trains:
        terms += [Term("gradients", gradients, part="step"), *_step(shape, engine, edits)]
    if refresh is not None:
        terms += _passes(shape, engine, "refresh", refresh)
        # Without ZeRO gradients go to the rows after each batch; with it they are added up where training's are.
        alone = (engine.stage or 0) == 0
        terms.append(Term("gradients", _beside(refresh, gradients) if alone else gradients, part="refresh"))
        terms.append(Term("new rows", 4.0 * edits.rows * edits.row_elements / engine.shared, part="refresh"))
    if engine.offload:
        terms = [_moved(term) for term in terms]
    return Estimate(terms)


def _beside(held: Held, gradients: float) -> float:
    """What gradients add to the peak of a pass that begins without any: they come as activations go."""
    return max(0.0, gradients - max(0.0, held.activations + held.head - held.rest))


def _kept(shape: ModelShape, engine: Engine) -> list[Term]:
    trained, frozen, stage = shape.num_trained, shape.frozen, engine.stage
    spread = engine.ranks if stage == 3 else 1
    terms = [Term("weights", engine.width * (trained + frozen) / spread)]
    master = 4.0 if stage is not None and (engine.bf16 or stage >= 1) else 0.0
    state = (8.0 if engine.trains else 0.0) * trained / engine.shared
    if master:
        terms.append(Term("fp32 master weights", master * trained / engine.shared))
    if state:
        terms.append(Term("optimizer state", state))
    if engine.on_accelerator:
        terms.append(Term("context and libraries", CONTEXT_BYTES))
    return terms


def _gradients(shape: ModelShape, engine: Engine) -> float:
    width = 4 if engine.wide_sums else engine.width
    spread = engine.ranks if (engine.stage or 0) >= 2 else 1
    return float(width * shape.num_trained / spread)


def _passes(shape: ModelShape, engine: Engine, part: Part, held: Held) -> list[Term]:
    terms = [Term("activations", held.activations, part=part), Term("loss head", held.head, part=part)]
    terms.append(Term("communication buckets", _buckets(shape, engine), part=part))
    if engine.stage == 3:
        gathered = min(engine.gathered, shape.num_parameters)
        terms.append(Term("gathered weights", engine.width * gathered, part=part))
    return terms


def _buckets(shape: ModelShape, engine: Engine) -> float:
    if engine.stage is None:
        # Data parallelism reduces copies of all gradients.
        return 4.0 * shape.num_trained if engine.ranks > 1 else 0.0
    if engine.stage == 0:
        return engine.width * min(engine.bucket, float(shape.num_trained)) if engine.ranks > 1 else 0.0
    return engine.width * engine.bucket


def _step(shape: ModelShape, engine: Engine, edits: Edits) -> list[Term]:
    share = shape.num_trained / engine.shared
    largest = share if (engine.stage or 0) >= 1 else float(shape.largest)
    terms = []
    if edits.keeps:
        # A tensor's part is kept whole; where a rank has few of one tensor's elements, a round has more tensors.
        tensor = shape.largest / engine.ranks if engine.stage == 3 else min(share, float(shape.largest))
        a_round = float(edits.round_elements if engine.on_accelerator else edits.held_elements)
        kept = share if edits.keeps_all else min(share, max(a_round, tensor))
        held = min(kept, a_round) if edits.keeps_each_step and (engine.offload or not engine.on_accelerator) else 0.0
        if held:
            terms.append(Term("weights from before the step", 4.0 * held))
        if kept > held:
            terms.append(Term("weights from before the step", 4.0 * (kept - held), part="step"))
        if not edits.keeps_all:
            largest = min(largest, kept)
    if engine.stage == 1 or (engine.stage == 2 and engine.width == 2 and not engine.wide_sums):
        terms.append(Term("gradients in fp32", 4.0 * share, part="step"))
    if engine.stage == 3:
        # DeepSpeed copies the gradients of a sub-group into one flat tensor before the optimizer takes it.
        terms.append(Term("gradients in one piece", 4.0 * min(share, SUB_GROUP), part="step"))
    if engine.stage == 0 and engine.bf16:
        terms.append(Term("gradients in fp32", 4.0 * share, part="step"))
    # On accelerators torch steps all tensors together, with one number for each element beside them.
    working = (
        4.0 * (largest if (engine.stage or 0) >= 1 or edits.keeps else share)
        if engine.on_accelerator
        else 8.0 * largest
    )
    terms.append(Term("the optimizer's working memory", working, part="step"))
    return terms


def _edits(shape: ModelShape, engine: Engine, edits: Edits) -> list[Term]:
    share = shape.num_trained / engine.shared
    terms = []
    if edits.rows and edits.holds_rows:
        terms.append(Term("rows of the basis", edits.row_width * edits.rows * edits.row_elements / engine.shared))
    if edits.masked:
        terms.append(Term("mask", (1 + 4 * edits.mask_share) * share))
    if edits.tracks_change:
        terms.append(Term("start of all weights", 4.0 * share))
    return terms


_OFFLOADED: Final = {
    "fp32 master weights", "optimizer state", "rows of the basis", "new rows", "mask", "start of all weights",
    "weights from before the step", "the optimizer's working memory", "gradients in fp32", "gradients in one piece",
}  # fmt: skip


def _moved(term: Term) -> Term:
    """A term where the optimizer lies in the host's memory, and what belongs to its tensors with it."""
    if term.name in _OFFLOADED:
        return Term(term.name, 0.0, term.device, term.part)
    # Gradients are summed there as well.
    return (
        Term(term.name, 0.0, term.device if term.part == "passes" else 0.0, term.part)
        if term.name == "gradients"
        else term
    )
