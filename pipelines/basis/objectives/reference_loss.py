"""The interface of a reference loss: all that the code which builds, keeps or refreshes a basis knows of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from pipelines.tokens.fitting import Bounds

if TYPE_CHECKING:
    import datasets

    from pipelines.passes.engine import ReferenceEngine
    from pipelines.passes.gradients import Batch, LossSum

Sample = dict[str, Any]
TOKEN_IDS = pa.list_(pa.int32())


class ReferenceLoss(ABC):
    """A loss whose gradient makes a row of a basis.

    Attributes:
        name: its name in ``--objective`` and in the files of a basis.
        title: its name in messages.
        task: the task of the prepared data sets that it takes: ``"sft"`` or ``"preference"``.
        columns: the columns of a sample, with the types in which a basis keeps them.
        samples_per_row: how many samples each row of the data set becomes; they follow one another.
        needs_start_values: whether samples hold values that were computed with the model that the basis was built for.
            Such a basis serves only for training that starts from that model.
        takes_beta: whether :meth:`loss_sum` depends on ``--beta``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    task: ClassVar[str]
    columns: ClassVar[Mapping[str, pa.DataType]]
    samples_per_row: ClassVar[int] = 1
    needs_start_values: ClassVar[bool] = False
    takes_beta: ClassVar[bool] = False

    @abstractmethod
    def encode(self, rows: datasets.Dataset, tokenizer: Any, bounds: Bounds, *, name: str) -> list[Sample]:
        """Turn the rows of a prepared data set into samples, in order; those that are to be left out are missing.

        Args:
            rows: the rows of the data set.
            tokenizer: a fast tokenizer with a chat template.
            bounds: what the rows must keep to.
            name: the name of the data set, for progress and errors.

        Raises:
            InputError: a row cannot be used; the message names it.
        """

    def with_start_values(
        self, samples: list[Sample], engine: ReferenceEngine, *, batch_size: int, pad_token_id: int
    ) -> list[Sample]:
        """The samples, with the values that the model gives them before training. Collective.

        Args:
            samples: the result of :meth:`encode`.
            engine: the model at the weights that the basis is built for.
            batch_size: the number of samples in one forward pass, per rank.
            pad_token_id: the id of the token that pads batches.
        """
        return samples

    @abstractmethod
    def length(self, sample: Sample) -> int:
        """The length by which samples are ordered, so that batches of similar lengths waste little padding."""

    @abstractmethod
    def num_tokens(self, sample: Sample) -> int:
        """The number of trained tokens."""

    @abstractmethod
    def num_units(self, sample: Sample) -> int:
        """The number of units that the objective is the mean over: answer tokens, or one for a pair."""

    @abstractmethod
    def collate(self, samples: Sequence[Sample], pad_token_id: int) -> Batch:
        """A batch for :meth:`loss_sum`, padded on the right."""

    @abstractmethod
    def loss_sum(self, beta: float | None) -> LossSum:
        """A function that gives the loss of a batch, summed over its units: a float32 scalar.

        Args:
            beta: the ``--beta`` that the basis was built with; None where the loss does not take it.
        """
