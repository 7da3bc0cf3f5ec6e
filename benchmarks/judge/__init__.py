"""The built-in judge fitted, and held against what people say."""
