"""Masks: which single weights training may move: scores, exact selection, packed bits stored and opened."""
