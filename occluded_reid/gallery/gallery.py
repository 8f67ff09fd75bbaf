"""Gallery: images of people in a folder, to add to, to remove from and to search."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.base import GalleryBase
from occluded_reid.gallery.build import make, matcher_of, require_fit, require_slots
from occluded_reid.gallery.filters import to_sql
from occluded_reid.gallery.hit import Hit
from occluded_reid.gallery.images import EmbeddingModel
from occluded_reid.gallery.layout import Layout
from occluded_reid.gallery.nearest import exclusions, nearest
from occluded_reid.gallery.query import hits_of
from occluded_reid.gallery.question import Question
from occluded_reid.gallery.rows import TableRows
from occluded_reid.gallery.store import Store
from occluded_reid.matchers import Matcher, VisibilityWeightedMatcher

__all__ = ["Gallery"]


class Gallery(GalleryBase):
    """Embedded images in a folder, made by `Gallery.create` and opened by `Gallery.open`.

    Opening and searching change nothing on disk. A gallery stays at the version that it has opened, and follows its own
    additions and removals; what others write meanwhile is seen after opening again. Its order is the order in which
    images were added (a replaced image counts as added anew), and equal distances are ranked in this order.

    Attributes:
        path: the folder.
        layout: content of its gallery.json: model, slots, dtype, matcher.
        matcher: the distance of its searches.

    Example:
        >>> import tempfile, torch
        >>> folder = tempfile.TemporaryDirectory()
        >>> rows = PartEmbeddings(("global",), (torch.eye(3),), torch.ones(3, 1))
        >>> with Gallery.create(folder.name, slots={"global": 3}) as gallery:
        ...     gallery.add(rows, keys=["a", "b", "c"], identity=["1", "2", None])
        ...     gallery.search(rows[1:2], k=2)
        AddResult(added=3, skipped=0, replaced=0, unreadable=())
        [[Hit(1: 'b' at 0.0000, identity='2'), Hit(2: 'a' at 1.0000, identity='1')]]
        >>> folder.cleanup()
    """

    @staticmethod
    def create(
        path: str | Path,
        *,
        model: EmbeddingModel | None = None,
        slots: Mapping[str, int] | None = None,
        fingerprint: str | None = None,
        matcher: Matcher | None = None,
        dtype: Literal["float16", "float32"] = "float16",
    ) -> Gallery:
        """Make an empty gallery, whole or not at all, and open it.

        Args:
            path: a folder that does not exist yet, or is empty.
            model: whose embeddings it will hold; it also embeds the images that are added.
            slots: name -> width, where no model is given.
            fingerprint: of the model that the embeddings come from, where no model is given.
            matcher: the distance of its searches; by default the model's own, or `visibility_weighted`.
            dtype: how embeddings are stored; float16 halves the disk space.

        Raises:
            GalleryError: the folder holds something, cannot be written, or the arguments contradict each other.
        """
        folder = Path(path)
        if (model is None) == (slots is None) or (model is not None and fingerprint is not None):
            raise GalleryError("give either a model, or the slots (and, if known, the fingerprint) of one.")
        if dtype not in ("float16", "float32"):
            raise GalleryError(f"dtype is {dtype!r}; give 'float16' or 'float32'.")
        widths = dict(model.slots if model is not None else slots or {})
        if not widths or not all(isinstance(width, int) and width > 0 for width in widths.values()):
            raise GalleryError(f"slots are {widths}; give a name and a width of at least 1 for each slot.")
        mark = model.fingerprint if model is not None else fingerprint
        chosen = matcher or (model.matcher if model is not None else VisibilityWeightedMatcher())
        layout = Layout(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            name=mark.partition("@")[0] if mark else None,
            fingerprint=mark,
            slots=widths,
            dtype=dtype,
            matcher=chosen.config,
        )
        require_slots(chosen, layout)
        make(folder, layout)
        return Gallery(folder, layout, Store(folder, layout), chosen, model, pinned=False)

    @staticmethod
    def open(
        path: str | Path,
        *,
        model: EmbeddingModel | None = None,
        matcher: Matcher | None = None,
        version: int | None = None,
    ) -> Gallery:
        """Open a gallery; nothing on disk is changed.

        Args:
            path: its folder.
            model: the model that built it, for adding and searching images; embeddings need none.
            matcher: another distance than the one it was created with.
            version: an older version, for reading only.

        Raises:
            GalleryError: there is no gallery, it is damaged, or it was made by a newer library.
            GalleryMismatchError: the model is not the one that built it.
        """
        folder = Path(path)
        layout = Layout.read(folder)
        if model is not None:
            require_fit(folder, layout, model)
        chosen = matcher or matcher_of(folder, layout, model)
        return Gallery(folder, layout, Store(folder, layout, version), chosen, model, pinned=version is not None)

    def _answer(self, question: Question) -> list[list[Hit]]:
        store = self._opened()
        rows = TableRows(store).where(to_sql(question.where))
        if not len(rows):
            return [[] for _ in question.origins]
        out = exclusions(question, rows)
        best = nearest(question.rows, rows, self.matcher, question.k, out, question.group_by)
        return hits_of(question.rows, rows, self.matcher, self.layout, best)
