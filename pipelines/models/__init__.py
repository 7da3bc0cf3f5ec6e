"""Models by reference: found, checked, summarised, loaded, and given adapters."""
