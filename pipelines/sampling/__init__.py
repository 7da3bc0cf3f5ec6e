"""The work of ``ogpsa sample``: a model's own answers to given prompts, with what it expected at each place."""
