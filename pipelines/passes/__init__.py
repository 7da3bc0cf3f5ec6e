"""Passes through a model at fixed weights, dealt out to ranks: reference gradients and log-probabilities."""
