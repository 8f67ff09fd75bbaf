"""Re-ranking: k-reciprocal neighbors, the lists of a gallery, one query at a time or all together."""
