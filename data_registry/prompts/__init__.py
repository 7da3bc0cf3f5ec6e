"""Prompt sets: requests without answers, for evaluation."""
