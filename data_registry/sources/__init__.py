"""Where rows come from: files, folders, prepared data sets, the hub, and the embedded testbed."""
