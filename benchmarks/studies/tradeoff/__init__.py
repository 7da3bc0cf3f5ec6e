"""What keeps abilities on the embedded testbed, at matched safety: `python -m benchmarks.studies.tradeoff`."""
