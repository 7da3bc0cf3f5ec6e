"""What is measured: speed, the judge, and studies of what keeps abilities."""
