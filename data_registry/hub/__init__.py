"""The hub: whether it can be reached, and what its refusals mean."""
