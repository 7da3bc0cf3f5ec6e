"""Processes: those of one command on this machine, those that srun started, and the steps of a chain."""
