"""Suites, answers, judges and figures: what a model can do, and what it refuses."""
