"""The work of `ogpsa judge`: answers made elsewhere, read, judged, and held against what people say."""
