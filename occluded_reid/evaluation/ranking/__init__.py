"""Ranks of the matches of each query: among all images of the gallery, or with a single shot of each identity."""
