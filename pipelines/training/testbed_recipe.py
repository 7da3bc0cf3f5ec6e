"""What is known of the testbed's base model before anything is trained: the length of its training, its files."""

from __future__ import annotations

from typing import Final

KIND: Final = "model"
RECIPE_FILE: Final = "testbed.json"
DEFAULT_STEPS: Final = 1_800
"""The steps of optimisation from nothing."""
