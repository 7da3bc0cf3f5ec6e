"""The basis: reference objectives, their gradients, and rows stored, read by slices and checked against a model."""
