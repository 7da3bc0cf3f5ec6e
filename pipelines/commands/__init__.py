"""One file for each command: its steps by name."""
