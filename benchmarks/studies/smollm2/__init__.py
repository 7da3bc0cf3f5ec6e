"""The paper's comparison on a real chat model of 135 M parameters: `python -m benchmarks.studies.smollm2`."""
