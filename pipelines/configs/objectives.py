"""The one table of reference losses: their names, their modules, and their part of the help of ``--objective``.

A new reference loss is a file in ``pipelines/basis/objectives`` and an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal


@dataclass(frozen=True)
class ObjectiveEntry:
    """A reference loss in the table; its module is imported when it is asked for.

    Attributes:
        target: the class of the loss, as ``module:class``.
        help: the part of the option's help that describes the loss.
    """

    target: str
    help: str


OBJECTIVES: Final[Mapping[str, ObjectiveEntry]] = {
    "sft": ObjectiveEntry("pipelines.basis.objectives.tokens:TokenLoss", "sft: mean token loss on the answers"),
    "dpo": ObjectiveEntry(
        "pipelines.basis.objectives.preference:PreferenceLoss", "on preference data, dpo: the preference loss"
    ),
    "sft-pairs": ObjectiveEntry(
        "pipelines.basis.objectives.token_pairs:TokenPairsLoss",
        "sft-pairs: token loss over both completions, as the original code's DPO stage has it",
    ),
}
OBJECTIVES_HELP: Final = "; ".join(entry.help for entry in OBJECTIVES.values())

if TYPE_CHECKING:
    ObjectiveName = str
else:
    ObjectiveName = Literal[tuple(OBJECTIVES)]
