"""A golden record of what the tool does, made and compared through its command line and its artifacts alone."""
