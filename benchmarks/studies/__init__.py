"""Comparisons on the embedded testbed, with their results beside them."""
