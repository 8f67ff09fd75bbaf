"""What the place of a gallery may be: a folder, or the address of an object store or of a server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from occluded_reid.errors import GalleryError
from occluded_reid.files import absolute

__all__ = ["folder_of", "kind_of", "require_folder"]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+", re.IGNORECASE)  # a single letter is a drive of Windows
_ON_THIS_DISK = ("file-object-store", "file+uring")  # of LanceDB: the local disk, without the lock of a folder


def kind_of(path: str | Path) -> Literal["folder", "object store", "server"]:
    """Return what keeps the gallery of a path.

    Raises:
        GalleryError: as `folder_of`.
    """
    if str(path).startswith("milvus:/"):  # `Path` makes one slash of two
        return "server"
    return "object store" if folder_of(path) is None else "folder"


def require_folder(path: str | Path) -> Path:
    """Return the folder that a path means.

    Raises:
        GalleryError: it is an address, or as `folder_of`.
    """
    found = folder_of(path)
    if found is None:
        raise GalleryError(f"'{path}' is the address of an object store; give a folder.")
    return found


def folder_of(path: str | Path) -> Path | None:
    """Return the folder that a path means, from the root on; None for the address of an object store.

    A ``file://`` address is the folder that it names, so that it has lock and checksums like any other. A `Path` is
    always a folder.

    Raises:
        GalleryError: the text looks like an address and is none, or names a folder in a roundabout way.
    """
    if not isinstance(path, str) or "://" not in path:
        return absolute(path, GalleryError)
    scheme = path.partition("://")[0]
    if not _SCHEME.fullmatch(scheme) or scheme.lower() in _ON_THIS_DISK:
        raise GalleryError(
            f"'{path}' is neither a folder nor an address such as 's3://bucket/mall' or 'milvus://host:19530/mall'. "
            "Give one of these; a folder with such a name is given as a pathlib.Path."
        )
    if scheme.lower() != "file":
        return None
    parts = urlsplit(path)
    if parts.netloc not in ("", "localhost") or not unquote(parts.path).startswith("/") or parts.query:
        raise GalleryError(
            f"'{path}' is not an address of a folder on this machine, which is written 'file:///data/mall'. "
            "Give the folder itself."
        )
    return absolute(url2pathname(parts.path), GalleryError)
