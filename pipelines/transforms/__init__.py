"""Edits of an optimizer step, which compose. They know shards, not trainers."""
