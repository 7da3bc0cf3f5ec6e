"""Everything that deals with DeepSpeed or process groups: starting processes, engine configuration, shards."""
