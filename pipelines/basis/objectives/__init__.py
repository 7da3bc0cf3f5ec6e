"""The reference losses, one per file: the data they take, how it becomes samples and batches, and the loss."""
