"""Hard negatives: find them in the passages of the data, and keep false ones out."""
