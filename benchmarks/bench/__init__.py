"""All benchmarks in one command, `python -m benchmarks.bench`: one table, and what became worse since the last kept."""
