"""A search in a gallery: the request, the rows that may answer it, the nearest of them, and their hits."""
