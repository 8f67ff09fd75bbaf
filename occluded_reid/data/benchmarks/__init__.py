"""Published data sets: for each one its protocol as data, and the loader that reads it from disk."""
