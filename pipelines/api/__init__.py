"""What other programs import: a basis, projection for loops and trainers of one's own, and merging."""
