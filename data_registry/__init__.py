"""The normal form of rows, and prepared data sets read back; its folders hold what leads from a source to them."""
