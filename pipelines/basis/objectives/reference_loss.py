"""What a reference loss says of itself; whoever builds, keeps or refreshes a basis knows no more of it than this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from pipelines.passes.engine import ReferenceEngine
from pipelines.passes.gradients import Batch, LossSum

if TYPE_CHECKING:
    import datasets

Sample = dict[str, Any]
TOKEN_IDS = pa.list_(pa.int32())


class ReferenceLoss(ABC):
    """A loss whose gradient makes a row of a basis.

    Attributes:
        name: as ``--objective`` and the files of a basis name it.
        title: the word for it in messages.
        task: of the prepared data sets that it takes: ``"sft"`` or ``"preference"``.
        columns: of a sample, with the types in which a basis keeps them.
        samples_per_row: how many samples a row of the data set becomes, side by side.
        needs_start_values: whether samples hold what the model gave them that the basis was built for, so that the
            basis serves for training from that model alone.
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
    def encode(self, rows: datasets.Dataset, tokenizer: Any, max_length: int, *, name: str) -> list[Sample]:
        """Rows of a prepared data set as samples, in order.

        Args:
            rows: of the data set.
            tokenizer: a fast tokenizer with a chat template.
            max_length: longest sequence in tokens.
            name: of the data set, for progress and errors.

        Raises:
            InputError: naming the row that cannot be used.
        """

    def with_start_values(
        self, samples: list[Sample], engine: ReferenceEngine, *, batch_size: int, pad_token_id: int
    ) -> list[Sample]:
        """The samples with what the model gives them before training. Collective.

        Args:
            samples: from :meth:`encode`.
            engine: the model at the weights that the basis is built for.
            batch_size: samples of one forward pass, per rank.
            pad_token_id: for padding.
        """
        return samples

    @abstractmethod
    def length(self, sample: Sample) -> int:
        """What samples are ordered by, so that batches of like lengths waste little padding."""

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
        """What gives the loss of a batch, summed over its units: a float32 scalar.

        Args:
            beta: of the basis; None where the loss does not take it.
        """
