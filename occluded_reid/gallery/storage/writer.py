"""Adding to a gallery: what is new, what is there already, what contradicts it; one commit for each group of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace as with_values

import numpy as np

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError, ImageError
from occluded_reid.gallery.hit import AddResult
from occluded_reid.gallery.images import EmbeddingModel, ImageLike, identify
from occluded_reid.gallery.near_keys import near_keys
from occluded_reid.gallery.storage.manifest import LABELS
from occluded_reid.gallery.storage.records import Record, record_of, same_rows, to_table
from occluded_reid.gallery.storage.store import ROW_ID, Store, to_embeddings

__all__ = ["Progress", "Writer", "no_progress", "remove_keys"]

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

_COMMIT_NUMBERS = 1 << 24  # numbers of one commit: 32 MB in float16
_COMMIT_IMAGES = 1024  # images that are embedded before they are committed: what an interruption loses
_COMMIT_ROWS = 8192
_SHOWN = 5


class Writer:
    """One call of `Gallery.add`.

    Args:
        store: the table, at its newest version.
        records: labels of all N images of the call, each with its key.
        replace: replace an image whose key is there with other content, instead of refusing it.
        progress: told how far it is.
        fit: brings embeddings to the slots of the gallery, or refuses them; takes words for whose they are.
        wait: seconds to wait for other writers before each commit, where several add images at once; None where the
            caller holds the gallery for the whole call.
    """

    def __init__(
        self,
        store: Store,
        records: Sequence[Record],
        replace: bool,
        progress: Progress | None,
        fit: Callable[[PartEmbeddings, str], PartEmbeddings],
        wait: float | None = None,
    ) -> None:
        self._store, self._layout, self._records, self._replace = store, store.manifest, records, replace
        self._progress, self._fit, self._wait = progress or no_progress, fit, wait
        self._repeated = {key for key, count in Counter(r.key for r in records).items() if count > 1}
        self._seen: dict[str, tuple[Record, PartEmbeddings | None]] = {}
        self._added = self._skipped = self._replaced = 0

    def add_rows(self, rows: PartEmbeddings) -> AddResult:
        """Add embeddings."""
        size = max(1, min(_COMMIT_ROWS, _COMMIT_NUMBERS // self._layout.width))
        for first in range(0, len(rows), size):
            records, part = self._records[first : first + size], rows[first : first + size]
            replaced, fresh = self._sort_out(records, part)
            chosen = [*replaced, *fresh]
            if chosen:
                kept = part if chosen == list(range(len(part))) else part[chosen]
                self._commit([records[i] for i in chosen], kept, len(replaced))
            self._progress(min(first + size, len(rows)), len(rows))
        return AddResult(self._added, self._skipped, self._replaced)

    def add_images(
        self, images: Sequence[ImageLike], model: EmbeddingModel, batch_size: int, skip_unreadable: bool
    ) -> AddResult:
        """Embed images, except those that the gallery holds already, and add them."""
        from occluded_reid.models.embedding import embed_images  # with it come networks, which other rows need not

        size = max(1, min(_COMMIT_IMAGES, _COMMIT_NUMBERS // self._layout.width))
        unreadable: list[str] = []
        for first in range(0, len(images), size):
            group, records = [], []
            pairs = zip(images[first : first + size], self._records[first : first + size], strict=True)
            for place, (image, record) in enumerate(pairs, start=first):
                try:
                    source = identify(image, f"'{record.key}' (images[{place}])")
                except ImageError:
                    if not skip_unreadable:
                        raise
                    unreadable.append(record.path or record.key)
                    continue
                group.append(image)
                records.append(with_values(record, sha256=source.sha256))
            before = dict(self._seen), self._skipped
            replaced, fresh = self._sort_out(records, None)
            chosen = [*replaced, *fresh]
            names = [records[i].path or records[i].key for i in chosen]
            lost: list[int] = []
            done = first + len(group) - len(chosen)
            parts = []
            for part in embed_images(
                model, [group[i] for i in chosen], names, batch_size, lost if skip_unreadable else None
            ):
                parts.append(self._fit(part, "the model's embeddings have"))
                done += len(part)
                self._progress(done, len(images))
            unreadable += [names[i] for i in lost]
            kept = [i for number, i in enumerate(chosen) if number not in set(lost)]
            if parts:
                rows = PartEmbeddings.cat(parts)
                with nullcontext() if self._wait is None else self._store.writing(self._wait):
                    if self._wait is not None:  # others may have added some of these images meanwhile
                        self._seen, self._skipped = before
                        replaced, fresh = self._sort_out(records, None)
                        places = [place for place, i in enumerate(kept) if i in {*replaced, *fresh}]
                        kept, rows = [kept[place] for place in places], rows[places]
                    if kept:
                        self._commit([records[i] for i in kept], rows, len(set(kept) & set(replaced)))
            self._progress(min(first + size, len(images)), len(images))
        return AddResult(self._added, self._skipped, self._replaced, tuple(unreadable))

    def _sort_out(self, records: Sequence[Record], rows: PartEmbeddings | None) -> tuple[list[int], list[int]]:
        """Return the numbers of images that replace others, and of new ones.

        Raises:
            GalleryError: a key is taken by other content.
        """
        # A moved folder makes no other image; and embeddings have no hash.
        ignore = ("path",) if not self._replace else ()
        ignore = (*ignore, "sha256") if rows is not None else ignore
        stored, same = self._stored(records, rows)
        replaced, fresh, twice, taken = [], [], [], []
        for number, record in enumerate(records):
            row = rows[[number]] if rows is not None and record.key in self._repeated else None
            if record.key in self._seen:
                before, before_row = self._seen[record.key]
                equal = row is None or before_row is None or bool(same_rows(row, before_row, self._layout)[0])
                if record.differs(before, ignore=(*ignore, "path")) or not equal:
                    twice.append(record.key)
                else:
                    self._skipped += 1
                continue
            if record.key in self._repeated:
                self._seen[record.key] = (record, row)
            if record.key not in stored:
                fresh.append(number)
            elif same[record.key] and not record.differs(stored[record.key], ignore=ignore, unsaid=not self._replace):
                self._skipped += 1
            elif self._replace:
                replaced.append(number)
            else:
                taken.append(record.key)
        if twice:
            raise GalleryError(f"{_list(twice)} given twice with different content. Give each image a key of its own.")
        if taken:
            raise GalleryError(
                f"{_list(taken)} in the gallery '{self._store.folder}' already, with other embeddings or labels. "
                "Pass replace=True (--replace) to replace them with all their labels, say other labels alone with "
                "relabel() (`occluded-reid gallery relabel`), or give the images other keys (keys=, --prefix)."
            )
        return replaced, fresh

    def _stored(
        self, records: Sequence[Record], rows: PartEmbeddings | None
    ) -> tuple[dict[str, Record], dict[str, bool]]:
        """Return what the gallery holds under these keys, and whether its slots are the same as these."""
        ids = self._store.find(["key"], [[record.key for record in records]]).column(ROW_ID).to_numpy()
        slots = ["visibility", *self._layout.columns] if rows is not None else []
        table = self._store.take(ids, [*LABELS, *slots])
        stored = {row["key"]: record_of(row) for row in table.select(list(LABELS)).to_pylist()}
        if rows is None or not stored:
            return stored, dict.fromkeys(stored, True)
        place = {record.key: number for number, record in reversed(list(enumerate(records)))}
        same = same_rows(rows[[place[key] for key in stored]], to_embeddings(table, self._layout), self._layout)
        return stored, {key: bool(s) for key, s in zip(stored, same, strict=True)}

    def _commit(self, records: Sequence[Record], rows: PartEmbeddings, replaced: int) -> None:
        """Write rows at once or not at all; the first `replaced` of them replace others."""
        # The version grows with every commit, so that a number is never used twice, not even after a removal.
        numbers = [int(n) for n in ((self._store.version + 1) << 32) + np.arange(len(records))]
        table = to_table(records, rows, numbers, self._layout)
        if replaced:
            self._store.upsert(table)
        else:
            self._store.append(table)
        self._added += len(records) - replaced
        self._replaced += replaced


def remove_keys(store: Store, keys: Sequence[str]) -> int:
    """Hide the images of these keys; none where one of them is not there.

    Raises:
        GalleryError: a key is not in the gallery.
    """
    wanted = set(keys)
    ids = store.find(["key"], [sorted(wanted)]).column(ROW_ID).to_numpy()
    found = store.take(ids, ["row", "key"])
    missing = sorted(wanted - set(found.column("key").to_pylist()))
    if missing:
        names = ", ".join(repr(key) for key in missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise GalleryError(
            f"{len(missing)} of {len(wanted)} keys are not in the gallery '{store.folder}': {names}."
            f"{near_keys(store, missing[0])} Nothing was removed; leave them out."
        )
    store.delete(found.column("row").to_pylist())
    return int(found.num_rows)


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""


def _list(keys: Sequence[str]) -> str:
    names = ", ".join(f"'{key}'" for key in keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")
    return f"the key {names} is" if len(keys) == 1 else f"the {len(keys)} keys {names} are"
