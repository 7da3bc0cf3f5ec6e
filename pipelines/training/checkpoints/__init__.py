"""Checkpoints: the whole state of a run at a step, written and restored to the bit."""
