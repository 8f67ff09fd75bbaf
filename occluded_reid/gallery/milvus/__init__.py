"""A gallery on a Milvus server: the same additions, removals and searches, beyond one machine."""

from occluded_reid.gallery.milvus.address import MilvusAddress
from occluded_reid.gallery.milvus.gallery import MilvusGallery
from occluded_reid.gallery.milvus.store import MilvusStore

__all__ = ["MilvusAddress", "MilvusGallery", "MilvusStore"]
