"""What lm-eval found out, as our results: from a call of it, or from the files that it wrote."""
