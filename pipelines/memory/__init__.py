"""What a run holds in memory on each rank, term by term, from a model's configuration alone, and which cluster holds it."""
