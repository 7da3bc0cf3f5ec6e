"""The reference losses, a file each: the data they take, how it becomes samples and batches, and their sum."""
