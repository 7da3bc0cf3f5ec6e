"""Conversations and preference pairs as token ids and labels, by the model's own tokenizer and chat template."""
