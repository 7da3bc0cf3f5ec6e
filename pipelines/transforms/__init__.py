"""Edits of an optimizer step that can be combined. They know shards, not trainers."""
