"""The gallery: images of people on disk as slots with a visibility, to be searched without embedding them again."""

from occluded_reid.gallery.gallery import Gallery
from occluded_reid.gallery.hit import AddResult, Hit, hits_table
from occluded_reid.gallery.layout import Layout
from occluded_reid.gallery.query import mean_query
from occluded_reid.gallery.rows import TableRows

__all__ = ["AddResult", "Gallery", "Hit", "Layout", "TableRows", "hits_table", "mean_query"]
