"""Judges of answers: the built-in one and models, and the figures that follow from their verdicts."""
