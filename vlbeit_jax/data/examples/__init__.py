"""From a record to the arrays of one training row: one file per kind of example."""
