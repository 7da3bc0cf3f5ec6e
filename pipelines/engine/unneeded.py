"""What libraries import on the way and a language model's training never calls: left out until it is called after all.

Nothing is computed otherwise. Each entry takes hold only where a library still has the name, so that another version of
it costs time and nothing else.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final

# Losses of models that detect objects, by which transformers imports scipy.optimize for every model.
_DETECTION: Final = "transformers.loss.loss_for_object_detection"
_WITH_SCIPY: Final = (
    "transformers.loss.loss_deformable_detr",
    "transformers.loss.loss_grounding_dino",
    _DETECTION,
)
_MATCHING: Final = "linear_sum_assignment"


def leave_out() -> None:
    """Have transformers and accelerate imported without what only other uses of them need.

    Call it before the trainer is imported; a second call does nothing.
    """
    if _DETECTION not in sys.modules:
        _without_scipy()
    other: Any = importlib.import_module("accelerate.utils.other")
    if hasattr(other, "is_deepspeed_available"):
        # A model can only be DeepSpeed's engine if DeepSpeed has been imported.
        other.is_deepspeed_available = lambda: "deepspeed" in sys.modules


def _without_scipy() -> None:
    utils: Any = importlib.import_module("transformers.utils")
    is_there = getattr(utils, "is_scipy_available", None)
    if is_there is None or not is_there():
        return
    utils.is_scipy_available = lambda: False
    try:
        importlib.import_module("transformers.modeling_utils")
    finally:
        utils.is_scipy_available = is_there
    for name in _WITH_SCIPY:
        module = sys.modules.get(name)
        if module is not None:
            _when_called(module)


def _when_called(module: ModuleType) -> None:
    """Give a module the function that it would have imported, as one that is imported when it is called."""
    if hasattr(module, _MATCHING):
        return

    def linear_sum_assignment(*arguments: Any, **options: Any) -> Any:
        from scipy import optimize

        return optimize.linear_sum_assignment(*arguments, **options)

    setattr(module, _MATCHING, linear_sum_assignment)
