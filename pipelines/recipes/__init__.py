"""Chains of ogpsa commands in YAML, how far they are, and the clusters that they run on."""
