"""How a model's answers come about and are kept."""
