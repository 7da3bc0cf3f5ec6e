"""Layers paired by name: the fine-tuned and the safe change, and the weights that give the direction of alignment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from data_registry.core.errors import InputError
from pipelines.merging.adapters import AdaptedModule, Adapter
from pipelines.weights.read_ahead import Read
from pipelines.weights.stored import Checkpoint, Stored, difference, row_blocks
from pipelines.weights.writing import natural


@dataclass(frozen=True)
class Direction:
    """``V = W_aligned - W_unaligned`` of one matrix, on disk.

    Attributes:
        aligned: where the aligned weight lies.
        unaligned: where the unaligned weight lies.
        transposed: it is stored as ``[in, out]``.
    """

    aligned: Stored
    unaligned: Stored
    transposed: bool = False

    def reads(self) -> Iterator[Read]:
        """What reads the rows of V in blocks, float32."""
        for start, stop in row_blocks(self.aligned.shape):
            yield partial(difference, self.aligned, self.unaligned, start, stop)

    @property
    def num_reads(self) -> int:
        """How many blocks there are."""
        return sum(1 for _ in row_blocks(self.aligned.shape))

    def whole(self) -> Tensor:
        """V as ``[out, in]``."""
        V = difference(self.aligned, self.unaligned, 0, self.aligned.shape[-2])
        return V.T if self.transposed else V


@dataclass(frozen=True)
class Layer:
    """One module that adapters change.

    Attributes:
        name: path of the module.
        finetuned: the fine-tuned change; None where only the safe adapter has one.
        safe: the safe change; None where only the fine-tuned adapter has one, or none was given.
        direction: the direction of alignment; None for methods without criterion.
    """

    name: str
    finetuned: AdaptedModule | None
    safe: AdaptedModule | None
    direction: Direction | None

    @property
    def any(self) -> AdaptedModule:
        """The fine-tuned change, or the safe one."""
        found = self.finetuned or self.safe
        assert found is not None
        return found

    @property
    def weight_name(self) -> str:
        """The model's tensor."""
        return f"{self.name}.weight"


def pair_adapters(
    finetuned: Adapter,
    safe: Adapter | None,
    models: tuple[Checkpoint, Checkpoint] | None,
    *,
    allow_unpaired: bool,
) -> list[Layer]:
    """The layers of two adapters, by module path, in the order of depth.

    Args:
        finetuned: the adapter that is to be repaired.
        safe: the adapter that is merged in.
        models: the aligned and the unaligned model, for the criterion.
        allow_unpaired: keep layers that one adapter alone has.

    Raises:
        InputError: a layer is on one side only, or shapes differ.
    """
    names = set(finetuned.modules) | (set(safe.modules) if safe else set())
    unpaired = unpaired_modules(finetuned, safe)
    if unpaired and not allow_unpaired:
        raise InputError(
            f"{len(unpaired)} layers are in one adapter only",
            where="; ".join(unpaired[:4]) + (" ..." if len(unpaired) > 4 else ""),
            fix="use adapters of the same modules, or add --allow-unpaired: such layers then stay as they are",
        )
    layers = []
    for name in sorted(names, key=natural):
        one, other = finetuned.modules.get(name), safe.modules.get(name) if safe else None
        if one and other and (one.shape != other.shape or one.is_embedding != other.is_embedding):
            raise InputError(
                f"the adapters change '{name}' in different shapes: {list(one.shape)} and {list(other.shape)}",
                where=f"{finetuned.source.reference} and {safe.source.reference if safe else ''}",
                fix="use adapters of the same base model",
            )
        # The criterion is about fine-tuning; where that changed nothing, there is nothing to measure.
        direction = _direction(finetuned, one, models) if models and one else None
        layers.append(Layer(name, one, other, direction))
    return layers


def unpaired_modules(finetuned: Adapter, safe: Adapter | None) -> list[str]:
    """The modules that only one adapter has, and the other tensors that only the safe one has, in words."""
    if safe is None:
        return []
    # Beside its factors an adapter may have tensors that stay as they are; those of the safe one alone get lost.
    left, right = {*finetuned.modules, *finetuned.extras}, {*safe.modules, *safe.extras}
    odd = (set(finetuned.modules) ^ set(safe.modules)) | (set(safe.extras) - set(finetuned.extras))
    return [
        f"{name} ({'fine-tuned' if name in left else 'safe'} only)"
        for name in sorted(odd, key=natural)
        if (name in left) != (name in right)
    ]


def _direction(adapter: Adapter, module: AdaptedModule, models: Sequence[Checkpoint]) -> Direction:
    # By the module's name in both: one of the models may tie the weight to another, and the other not.
    name = f"{module.name}.weight"
    aligned = models[0].need(name)
    transposed = is_transposed(adapter, module, aligned, models[0])
    return Direction(aligned, models[1].need(name, aligned.shape), transposed)


def is_transposed(adapter: Adapter, module: AdaptedModule, weight: Stored, model: Checkpoint) -> bool:
    """Whether the weight that a module changes is stored as ``[in, out]``.

    The shapes say it; for a square weight the model's architecture does, and, where that is not known, the adapter.

    Raises:
        InputError: the weight fits the module neither way round.
    """
    out_in = module.shape
    swapped = (out_in[1], out_in[0])
    if weight.shape not in (out_in, swapped):
        raise InputError(
            f"the adapter '{adapter.source.reference}' changes '{module.name}' as {list(out_in)}; "
            f"the weight is {list(weight.shape)}",
            where=str(weight.file),
            fix="use the model that the adapter was trained on, of the same size",
        )
    if out_in != swapped:
        return weight.shape == swapped
    if model.is_known:
        return model.is_transposed(weight.name)
    return module.is_embedding or bool(adapter.config.get("fan_in_fan_out"))
