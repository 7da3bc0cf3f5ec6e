"""What ALLO's claims come to on the embedded testbed: `python -m benchmarks.studies.allo`."""
