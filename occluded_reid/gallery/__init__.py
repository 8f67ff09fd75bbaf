"""The gallery: images of people on disk as slots with a visibility, to be searched without embedding them again."""

from typing import TYPE_CHECKING

from occluded_reid.gallery.browsing import KEEP, CameraCount, GalleryImage, GalleryInfo
from occluded_reid.gallery.filters.conditions import Condition, field
from occluded_reid.gallery.gallery import Gallery
from occluded_reid.gallery.hit import AddResult, Hit, hits_table
from occluded_reid.gallery.index.upkeep import IndexInfo
from occluded_reid.gallery.search.query import mean_query
from occluded_reid.gallery.search.rows import TableRows
from occluded_reid.gallery.storage.maintenance import CompactResult, GalleryVersion
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.gallery.storage.verify import VerifyReport, verify_folder
from occluded_reid.moved import find_renamed

if TYPE_CHECKING:
    from occluded_reid.gallery.local import LocalGallery
    from occluded_reid.gallery.milvus.gallery import MilvusGallery
    from occluded_reid.gallery.object_store import ObjectStoreGallery
    from occluded_reid.gallery.storage.erase import EraseResult
else:

    def __getattr__(name: str) -> object:
        """Import what few need, and what imports much, when it is asked for."""
        from importlib import import_module

        homes = {
            "EraseResult": "storage.erase",
            "LocalGallery": "local",
            "MilvusGallery": "milvus.gallery",
            "ObjectStoreGallery": "object_store",
        }
        if name not in homes:
            return find_renamed(__name__, name)
        return getattr(import_module(f"occluded_reid.gallery.{homes[name]}"), name)


__all__ = [
    "KEEP",
    "AddResult",
    "CameraCount",
    "CompactResult",
    "Condition",
    "EraseResult",
    "Gallery",
    "GalleryImage",
    "GalleryInfo",
    "GalleryVersion",
    "Hit",
    "IndexInfo",
    "LocalGallery",
    "Manifest",
    "MilvusGallery",
    "ObjectStoreGallery",
    "TableRows",
    "VerifyReport",
    "field",
    "hits_table",
    "mean_query",
    "verify_folder",
]
