"""Two small labelled sets that are drawn, and their pairs by the definition; the tests of this room share them."""

from __future__ import annotations

import math

import numpy as np
import torch

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings


def sides(
    seed: int,
    queries: int,
    rows: int,
    *,
    people: int = 8,
    first: int = 0,
    noise: float = 0.8,
    hidden: float = 0.3,
    ties: bool = False,
) -> list[EmbeddedSet]:
    """Queries and gallery of some people from `first` on, under three cameras; `ties`: of few directions."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(people, 2, 4))
    made = []
    for count in (queries, rows):
        identity = random.integers(0, people, count)
        vectors = centres[identity] + random.normal(size=(count, 2, 4)) * noise
        if ties:
            vectors = random.integers(-1, 2, (count, 2, 4)) + np.array([0, 0, 0, 2.0])
        slots = tuple(torch.from_numpy(vectors[:, s]).float() for s in range(2))
        seen = torch.from_numpy((random.random((count, 2)) >= hidden).astype(np.float32))
        rows_ = PartEmbeddings(("global", "part"), slots, seen)
        made.append(EmbeddedSet(rows_, identity + first, random.integers(0, 3, count)))
    return made


def by_loops(query: EmbeddedSet, gallery: EmbeddedSet) -> list[tuple[bool, float, int, int]]:
    """(match, distance rounded to 1e-6 or infinite, shared slots, person) of every pair that counts."""
    vectors = [[slot.double().numpy() for slot in rows.embeddings.embeddings] for rows in (query, gallery)]
    seen = [rows.embeddings.visibility.numpy() for rows in (query, gallery)]
    pairs = []
    for q in range(len(query)):
        for g in range(len(gallery)):
            match = bool(query.identity[q] == gallery.identity[g])
            if match and query.camera[q] == gallery.camera[g]:
                continue
            both = [s for s in range(2) if seen[0][q, s] and seen[1][g, s]]
            each = []
            for s in both:
                x, y = vectors[0][s][q], vectors[1][s][g]
                each.append(1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y))
            distance = round(sum(each) / len(each), 6) if both else math.inf
            pairs.append((match, distance, len(both), int(query.identity[q])))
    return pairs
