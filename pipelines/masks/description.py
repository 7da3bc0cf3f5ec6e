"""The description kept with a mask: how its weights were chosen, and the model that it is for."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

DESCRIPTION_FILE = "mask.json"
KIND = "mask"


class CutRecord(BaseModel):
    """Where the chosen weights of a group of tensors end.

    Attributes:
        group: the tensor's name; ``all`` where all tensors share a threshold.
        threshold: the score of the last one, in hexadecimal, so that it is exact.
        above: the number of weights with scores beyond it.
        ties_taken: how many of those with this very score belong to them: the first in order.
    """

    model_config = ConfigDict(extra="forbid")
    group: str
    threshold: str
    above: int
    ties_taken: int


class MaskDescription(BaseModel):
    """What a mask is and what it was chosen by.

    Attributes:
        score: the kind of score.
        score_options: what the score depends on beside the inputs.
        eligible: the names of the parameters among whose weights was chosen.
        num_eligible: the number of their elements.
        num_wanted: how many weights the ratio asks for.
        num_chosen: how many were chosen by score; fewer where all others have a score of 0.
        num_selected: how many the mask holds, other masks added and taken out.
        cuts: where the chosen weights end; and, with ``skip_top``, ``skipped``: where they begin.
        others: the masks that were added, kept to and taken out, with their fingerprints.
        shapes: the shapes of all parameters of the model by name.
    """

    model_config = ConfigDict(extra="forbid")
    score: str
    score_options: dict[str, Any]
    scope: str
    ratio: float
    skip_top: float
    order: str
    eligible: list[str]
    num_eligible: int
    num_parameters: int
    num_wanted: int
    num_chosen: int
    num_selected: int
    cuts: list[CutRecord]
    skipped: list[CutRecord]
    others: list[dict[str, str]]
    model: str
    model_fingerprint: str
    architecture: str
    shapes: dict[str, list[int]]
