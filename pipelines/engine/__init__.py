"""All that knows DeepSpeed or several processes: the process group, engine configuration, reference passes, shards."""
