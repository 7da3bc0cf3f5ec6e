"""From the rows of a source to the rows of a prepared data set: read, accounted for, selected, written."""
