"""Small real data made from public files: harmful requests with composed refusals, and excerpts of general sets."""
