"""Training data in tokens: safety rows, replay, packing, held-out rows, reference log-probabilities."""
