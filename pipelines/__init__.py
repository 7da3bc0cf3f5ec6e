"""Everything that ogpsa does, from the core at the bottom to one file for each command at the top."""
