"""Factory strings of FAISS: which ones are supported, what they need, and what they cost before anything is built."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from occluded_reid.errors import UnknownOptionError
from occluded_reid.options import did_you_mean

__all__ = ["SUPPORTED", "Estimate", "Factory", "estimate", "parse_factory"]

SUPPORTED = "Flat, IVFx,{Flat,SQ8,SQfp16,PQm} and HNSWx[,SQ8], each with an OPQm[_d] or PCAd prefix if wanted"
"""The supported factory strings, as messages show them."""

_ROWS_PER_CELL = 39  # FAISS warns when k-means gets fewer rows for each centroid
_SAMPLE_PER_CELL = 64  # rows that training is given for each cell: more costs time and finds the same cells
_CODEWORDS = 256  # of product quantisation, 8 bits
_SAMPLE_OF_CODES = 65_536  # FAISS uses no more rows to learn codewords or a rotation
_CODINGS = ("Flat", "SQ8", "SQfp16")
_EXAMPLES = ("Flat", "IVF1024,Flat", "IVF1024,SQ8", "IVF1024,SQfp16", "IVF1024,PQ16", "HNSW32", "HNSW32,SQ8")

_PREFIX = re.compile(r"(?:OPQ(?P<opq>\d+)(?:_(?P<rotated>\d+))?|PCA(?P<pca>\d+))\Z")
_IVF = re.compile(r"IVF(?P<cells>\d+)\Z")
_HNSW = re.compile(r"HNSW(?P<links>\d+)\Z")
_PQ = re.compile(r"PQ(?P<codes>\d+)(?:x(?P<bits>\d+))?\Z")


@dataclass(frozen=True)
class Factory:
    """What a factory string asks for.

    Attributes:
        kind: "Flat" compares with every vector, "IVF" with those in the nearest cells, "HNSW" walks a graph.
        cells: IVF: number of cells (nlist); else 0.
        links: HNSW: links of a vector; else 0.
        coding: how a vector is kept: "Flat" (float32), "SQfp16", "SQ8" or "PQ".
        codes: PQ: codes of a vector; else 0.
        bits: of a code; others than 8, a byte, are for a server ("PQ16x4").
        prefix: "", "OPQ" (a rotation for product quantisation) or "PCA" (fewer dimensions).
        parts: OPQ: its number of parts; else 0.
        reduced: width after the prefix; 0 where it stays.
    """

    kind: Literal["Flat", "IVF", "HNSW"] = "Flat"
    cells: int = 0
    links: int = 0
    coding: str = "Flat"
    codes: int = 0
    bits: int = 8
    prefix: Literal["", "OPQ", "PCA"] = ""
    parts: int = 0
    reduced: int = 0

    @property
    def text(self) -> str:
        """The factory string."""
        coding = f"PQ{self.codes}{f'x{self.bits}' if self.bits != 8 else ''}" if self.coding == "PQ" else self.coding
        body = {"Flat": "Flat", "IVF": f"IVF{self.cells},{coding}", "HNSW": f"HNSW{self.links}"}[self.kind]
        if self.kind == "HNSW" and self.coding != "Flat":
            body += f",{coding}"
        if self.prefix == "OPQ":
            return f"OPQ{self.parts}{f'_{self.reduced}' if self.reduced else ''},{body}"
        return f"PCA{self.reduced},{body}" if self.prefix else body

    def __str__(self) -> str:
        return self.text

    @property
    def trained(self) -> bool:
        """Whether it learns from a sample before rows are added."""
        return self.kind == "IVF" or self.coding != "Flat" or bool(self.prefix)

    def require_width(self, width: int, slot: str = "a slot") -> None:
        """Raise UnknownOptionError if vectors of this width cannot be kept so."""
        if self.bits != 8:
            here = replace(self, bits=8).text
            raise UnknownOptionError(f"'{self.text}' has codes of {self.bits} bits; here they have 8. Give '{here}'.")
        inner = self.reduced or width
        where = f"the index '{self.text}' does not fit {slot} of {width} numbers"
        if inner > width:
            raise UnknownOptionError(f"{where}: {self.prefix} would make {inner} of them; give at most {width}.")
        for name, parts in (("OPQ", self.parts), ("PQ", self.codes)):
            if parts and inner % parts:
                good = [d for d in range(1, inner + 1) if inner % d == 0]
                close = sorted(sorted(good, key=lambda d: (abs(d - parts), d))[:4])
                raise UnknownOptionError(
                    f"{where}: {name}{parts} cuts {inner} numbers into {parts} equal parts, but {parts} does not "
                    f"divide {inner}. Give one that does, such as {', '.join(f'{name}{d}' for d in close)}."
                )

    def fit(self, rows: int, width: int) -> tuple[Factory, list[str]]:
        """Return what can be trained with this many rows, and a sentence for each thing that was changed.

        Args:
            rows: training rows at hand.
            width: numbers in a vector.
        """
        needs = [
            (_ROWS_PER_CELL * _CODEWORDS, "to learn codewords", self.coding == "PQ" or self.prefix == "OPQ"),
            (width, f"to find the main axes of {width} numbers", self.prefix == "PCA"),
            (2 * _ROWS_PER_CELL, "to make two cells", self.kind == "IVF"),
            (1, "to learn from", self.trained),
        ]
        for least, why, needed in needs:
            if needed and rows < least:
                return Factory(), [f"{self.text} became Flat: {rows:,} rows are too few {why}, which takes {least:,}."]
        cells = rows // _ROWS_PER_CELL
        if self.kind == "IVF" and cells < self.cells:
            fitted = replace(self, cells=cells)
            why = f"{rows:,} rows are enough for {cells:,} cells ({_ROWS_PER_CELL} rows each)"
            return fitted, [f"{self.text} became {fitted.text}: {why}."]
        return self, []

    def training_rows(self, rows: int) -> int:
        """Return how many of `rows` rows training should be given; 0 where nothing is learnt."""
        wanted = _SAMPLE_PER_CELL * self.cells
        if self.trained and (self.coding != "Flat" or self.prefix):
            wanted = max(wanted, _SAMPLE_OF_CODES)
        return min(rows, wanted)


def parse_factory(text: str) -> Factory:
    """Read a factory string.

    Args:
        text: such as ``"Flat"``, ``"IVF4096,SQfp16"``, ``"OPQ16_64,IVF1024,PQ16"`` or ``"HNSW32"``.

    Raises:
        UnknownOptionError: it is not supported; the message lists what is, and the closest one.

    Example:
        >>> parse_factory("PCA64,IVF1024,SQ8")
        Factory(kind='IVF', cells=1024, links=0, coding='SQ8', codes=0, bits=8, prefix='PCA', parts=0, reduced=64)
    """
    parts = str(text).split(",")
    fields: dict[str, object] = {}
    prefix = _PREFIX.match(parts[0])
    if prefix and len(parts) > 1:
        parts = parts[1:]
        opq, rotated, pca = (int(n) if n else 0 for n in prefix.group("opq", "rotated", "pca"))
        fields = {"prefix": "OPQ" if opq else "PCA", "parts": opq, "reduced": rotated or pca}
        if opq + pca == 0 or (prefix["rotated"] and not rotated):
            raise _refused(text)
    ivf, hnsw = _IVF.match(parts[0]), _HNSW.match(parts[0])
    if parts == ["Flat"]:
        return Factory(**fields)  # type: ignore[arg-type]
    if ivf and int(ivf["cells"]) and len(parts) == 2:
        pq = _PQ.match(parts[1])
        if pq and int(pq["codes"]) and int(pq["bits"] or 8):
            fields |= {"coding": "PQ", "codes": int(pq["codes"]), "bits": int(pq["bits"] or 8)}
            return Factory("IVF", int(ivf["cells"]), **fields)  # type: ignore[arg-type]
        if parts[1] in _CODINGS:
            return Factory("IVF", int(ivf["cells"]), coding=parts[1], **fields)  # type: ignore[arg-type]
    if hnsw and int(hnsw["links"]) > 1 and parts[1:] in ([], ["Flat"], ["SQ8"]):
        return Factory("HNSW", links=int(hnsw["links"]), coding=(parts[1:] or ["Flat"])[0], **fields)  # type: ignore[arg-type]
    raise _refused(text)


def _refused(text: str) -> UnknownOptionError:
    close = did_you_mean(str(text), _EXAMPLES)
    respelt = str(text).replace(" ", "").upper().replace("FLAT", "Flat").replace("SQFP16", "SQfp16")
    if respelt != text:
        with contextlib.suppress(UnknownOptionError):
            close = f" Did you mean '{parse_factory(respelt).text}'?"
    return UnknownOptionError(f"the index {text!r} is not supported.{close} Supported: {SUPPORTED}.")


@dataclass(frozen=True)
class Estimate:
    """What an index of every slot will take, roughly: known before anything is built.

    Attributes:
        factory: the factory string.
        rows: rows of the gallery.
        disk: bytes of all files.
        opened: bytes of memory that an opened index keeps (IVF leaves its vectors on the disk), without cached pages.
        building: bytes of memory at the worst moment of building, one slot after another.
        training_rows: rows that each slot learns from.
        note: what to know about it.
    """

    factory: str
    rows: int
    disk: int
    opened: int
    building: int
    training_rows: int
    note: str

    def __str__(self) -> str:
        return (
            f"{self.factory} for {self.rows:,} rows: {_size(self.disk)} on disk, {_size(self.opened)} of memory when "
            f"opened, {_size(self.building)} while building, {self.training_rows:,} training rows for each slot. "
            f"{self.note}"
        )


def estimate(factory: Factory | str, rows: int, widths: Mapping[str, int], visible: float = 1.0) -> Estimate:
    """Estimate what an index for every slot takes.

    Args:
        factory: what is to be built.
        rows: rows of the gallery.
        widths: width of each slot that is indexed.
        visible: fraction of rows in which a slot is visible, on average.

    Raises:
        UnknownOptionError: the string is not supported, or does not fit a slot.

    Example:
        >>> print(estimate("IVF4096,SQfp16", 1_000_000, {"global": 256, "part_1": 256}, 0.8))
        IVF4096,SQfp16 for 1,000,000 rows: 840 MB on disk, 8.39 MB of memory when opened, 689 MB while building, \
262,144 training rows for each slot. Vectors stay on the disk; a search reads the cells it looks into.
    """
    wanted = parse_factory(factory) if isinstance(factory, str) else factory
    held = math.ceil(rows * visible)
    fitted = wanted
    disk = opened = building = 0
    for slot, width in widths.items():
        wanted.require_width(width, f"slot '{slot}'")
        fitted, _ = wanted.fit(held, width)
        inner = fitted.reduced or width
        size = {"Flat": 4 * inner, "SQfp16": 2 * inner, "SQ8": inner, "PQ": fitted.codes}[fitted.coding]
        links = 4 * 2 * fitted.links + 4 * fitted.links // 8 + 16 if fitted.links else 0
        vectors = held * (size + links + 8)
        fixed = 4 * fitted.cells * inner + (4 * width * inner if fitted.prefix else 0)
        fixed += 4 * _CODEWORDS * inner if fitted.coding == "PQ" else 0
        disk += vectors + fixed
        opened += fixed if fitted.kind == "IVF" else vectors + fixed
        building = max(building, vectors + fixed + 4 * width * fitted.training_rows(held))
    note = {
        "Flat": "Exact lists; every vector is looked at.",
        "IVF": "Vectors stay on the disk; a search reads the cells it looks into.",
        "HNSW": "Stays in memory; slow to build; rows are never taken out.",
    }[fitted.kind]
    if fitted.kind != wanted.kind:
        note = f"Too few rows for {wanted.text}: Flat is built. {note}"
    elif fitted != wanted:
        note = f"Rows are enough for {fitted.cells:,} cells. {note}"
    return Estimate(wanted.text, rows, disk, opened, building, fitted.training_rows(held), note)


def _size(count: int) -> str:
    """Bytes as people say it, in powers of ten."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
