"""What all of pipelines stands on: configuration, artifacts, progress, log, the job's processes. Imports no torch."""
