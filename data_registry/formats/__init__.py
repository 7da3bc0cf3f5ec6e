"""How data sets lay out their rows: one file for each family of formats, and the registry that finds the right one."""
