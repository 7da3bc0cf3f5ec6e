"""Samples on disk: a model's own answers as rows, what it expected at their places, and the states of its head."""
