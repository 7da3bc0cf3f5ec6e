"""The work of ``ogpsa prepare-data``: the request put together, rows checked as tokens, rows written."""
