"""What a run holds in memory on each rank, by term, from a model's configuration; and which cluster holds it."""
