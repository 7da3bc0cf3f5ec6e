"""Figures with their intervals, and comparisons on the same items."""
