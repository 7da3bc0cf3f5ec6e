"""Checkpoints: what a run is at a step, written and put back to the bit."""
