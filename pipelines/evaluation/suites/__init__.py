"""One file for each suite: what it asks, and how it scores."""
