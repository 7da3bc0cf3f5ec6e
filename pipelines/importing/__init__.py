"""The work of `ogpsa import-model`: GGUF files become model directories, and what was changed on the way is checked."""
