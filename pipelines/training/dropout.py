"""Dropout switched off, also where a model has it as a number rather than as a module."""

from __future__ import annotations

from typing import Any

from trl.trainer.utils import disable_dropout_in_model


def switch_off_dropout(model: Any) -> None:
    """Switch off all dropout of a model, for losses that compare it with what it was.

    TRL looks for modules alone. Most models drop attention weights by a number that a module has
    (``attention_dropout`` of Llama), and then differ from themselves before the first step.

    Args:
        model: the model, which is changed.
    """
    disable_dropout_in_model(model)
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and ("dropout" in name or "layerdrop" in name):
                setattr(module, name, 0.0)
