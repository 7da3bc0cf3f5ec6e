"""A look at what is there: artifacts with their lineage, and the machine."""
