"""The mathematics of projection on tensors. Knows no files, ranks or configurations, and imports torch alone."""
