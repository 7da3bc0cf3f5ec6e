"""Token weights: how much each token of an answer counts in training, by a rule, stored and opened."""
