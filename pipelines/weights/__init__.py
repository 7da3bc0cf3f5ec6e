"""Tensors on disk: stored weights read by rows, and safetensors written one tensor, or one piece, at a time."""
