"""Merging on the embedded testbed: ``python -m benchmarks.studies.grid merge_testbed --work DIR``."""
