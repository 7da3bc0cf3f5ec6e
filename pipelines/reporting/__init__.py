"""Results side by side: what is read, computed, drawn and written for a report."""
