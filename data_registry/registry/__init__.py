"""Data sets by name, each with source, revision, format, licence and citation."""
