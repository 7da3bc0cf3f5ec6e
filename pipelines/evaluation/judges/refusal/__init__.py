"""The built-in refusal judge: what it reads in an answer, its weights, and its agreement with people."""
