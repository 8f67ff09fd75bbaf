"""Occlusion sweep: a model on queries of which more and more is occluded, from below, a side, above, anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from occluded_reid._version import __version__
from occluded_reid.arguments import checked, shown
from occluded_reid.data.dataset import ReIDData, Sample
from occluded_reid.data.occlusion.kinds import OcclusionKind, open_kinds
from occluded_reid.data.occlusion.pins import Place
from occluded_reid.data.occlusion.place import TOLERANCE
from occluded_reid.errors import EvaluationError, ImageError, MaskError
from occluded_reid.evaluation.embed import EmbeddedWithTruth, Occlusion, embed_with_truth
from occluded_reid.evaluation.evaluate import evaluate
from occluded_reid.evaluation.leakage import require_apart, training_note
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.report import Report
from occluded_reid.evaluation.studies.sweep.result import Sweep
from occluded_reid.evaluation.studies.sweep.settings import SweepSettings
from occluded_reid.models import ReIDModel

__all__ = ["SEVERITIES", "is_sweep_of", "sweep", "sweep_settings"]

SEVERITIES: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Shares of the body mask that a sweep occludes by default."""

_FROM: Mapping[Place, str] = {
    "anywhere": "anywhere",
    "bottom": "from the lower edge up",
    "side": "from the left or the right",
    "top": "from the upper edge down",
    "standing": "standing, coming in from a side",
}
# Names and intervals change no number that was measured.
_NO_RULES = ("dataset", "split", "name", "bootstrap", "confidence", "cameras_known", "notes")


@checked(EvaluationError)
def sweep(
    model: ReIDModel,
    data: ReIDData,
    *,
    kinds: Sequence[OcclusionKind] | None = None,
    severities: Iterable[float] = SEVERITIES,
    seeds: Iterable[int] = (0,),
    protocol: Protocol | None = None,
    name: str = "",
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Evaluate a model on a data set's queries while more and more of each body is occluded.

    The gallery stays as it is. What occludes an image is drawn from (seed, name of the image) alone: every model meets
    the same occlusions, and from one severity to the next the same thing grows, unless it cannot cover the share.
    Memory: the embeddings of the gallery and of the queries once, one tile of distances, and each query's numbers for
    each kind and severity. Nothing is fitted or chosen.

    Args:
        model: its own matcher is used.
        data: queries with part masks, and a gallery.
        kinds: from `open_kinds`; by default all of them, with generated occluders and the gallery's pedestrians.
        severities: shares of the body mask to occlude, 0 … 1; the clean queries are always one of them.
        seeds: one occlusion of every query for each; a query's numbers are means over them.
        protocol: what counts; by default the rules of the data.
        name: of the model, for tables and legends; by default that of its recipe.
        batch_size: images a batch.
        progress: called with (images embedded, images to embed).

    Raises:
        EvaluationError: no share above 0, one outside 0 … 1, no seed, no queries or gallery, or a person is both in
            training and in queries or gallery.
        MaskError: a query has no part mask.
    """
    require_apart(data)
    protocol = protocol or Protocol.of(data)
    _require_masks(data)
    kinds = tuple(open_kinds(people=data.gallery) if kinds is None else kinds)
    settings = sweep_settings(data, kinds, severities, seeds, protocol)
    hidden = settings.severities[1:]
    total = len(data.gallery) + len(data.query) * (1 + len(kinds) * len(hidden) * len(settings.seeds))
    done = 0
    fingerprint = model.fingerprint

    def embed(samples: Sequence[Sample], occlusion: Occlusion | None = None) -> EmbeddedWithTruth:
        nonlocal done
        result = embed_with_truth(
            model,
            data,
            samples,
            occlusion=occlusion,
            truth=False,
            batch_size=batch_size,
            progress=None if progress is None else lambda n, _: progress(done + n, total),
        )
        done += len(samples)
        return result

    gallery = embed(data.gallery).embedded

    def measure(occlusion: Occlusion | None) -> tuple[Report, np.ndarray]:
        query = embed(data.query, occlusion)
        return evaluate(query.embedded, gallery, model.matcher, protocol, fingerprint=fingerprint), query.shares

    clean, _ = measure(None)
    first = clean.query_values
    values = np.empty((len(kinds), len(settings.severities), *first.shape))
    values[:, 0] = first
    covered, missed = np.zeros(values.shape[:2]), np.zeros(values.shape[:2], dtype=np.int64)
    for k, kind in enumerate(kinds):
        for s, severity in enumerate(hidden, start=1):
            seen = [measure(Occlusion(severity, kind.occluders, seed, kind.place)) for seed in settings.seeds]
            shares = np.stack([share for _, share in seen])
            values[k, s] = np.mean([report.query_values for report, _ in seen], axis=0)
            covered[k, s] = shares.mean()
            missed[k, s] = np.count_nonzero(np.abs(shares - severity) > TOLERANCE)
    facts = {key: fact for key, fact in clean.facts.items() if key not in ("condition", "pairs without a common slot")}
    facts["training"] = training_note(model, data)
    return Sweep(
        name or model.name,
        fingerprint,
        plain(model.matcher.config),
        settings,
        tuple(clean.metrics),
        values,
        covered,
        missed,
        facts,
    )


def sweep_settings(
    data: ReIDData,
    kinds: Sequence[OcclusionKind],
    severities: Iterable[float] = SEVERITIES,
    seeds: Iterable[int] = (0,),
    protocol: Protocol | None = None,
) -> SweepSettings:
    """Return what the numbers of a sweep would stand on, without measuring anything; every file is read once.

    Args:
        data: queries and gallery.
        kinds: from `open_kinds`.
        severities: shares of the body mask to occlude, 0 … 1, in any order.
        seeds: of the occlusions, in any order.
        protocol: what counts; by default the rules of the data.

    Raises:
        EvaluationError: no share above 0, one outside 0 … 1, no seed, a negative one, or no kind or one twice.
        ImageError, MaskError: a file cannot be read.
    """
    severities, seeds = tuple(severities), tuple(seeds)
    if odd := [share for share in severities if isinstance(share, bool | str) or not isinstance(share, Real)]:
        raise EvaluationError(f"the share of the body to occlude is {shown(odd[0])}; give a number in 0 … 1.")
    if odd := [seed for seed in seeds if isinstance(seed, bool) or not isinstance(seed, Integral)]:
        raise EvaluationError(f"the seed to occlude with is {shown(odd[0])}; give a whole number.")
    shares = sorted({0.0, *map(float, severities)})
    if outside := [share for share in shares if not 0 <= share <= 1]:
        raise EvaluationError(f"the share of the body to occlude is {outside[0]}; give 0 … 1: 0.35 means 35 %.")
    if len(shares) < 2:
        raise EvaluationError("a sweep needs at least one share of the body to occlude; give one above 0, such as 0.5.")
    wanted = tuple(sorted(set(seeds)))
    if not wanted or wanted[0] < 0:
        raise EvaluationError(f"the seeds to occlude with are {list(wanted)}; give at least one, none negative.")
    names = [kind.name for kind in kinds]
    if not names or len(set(names)) < len(names):
        raise EvaluationError(f"the kinds of occlusion are {names}; give at least one, and each once.")
    protocol = protocol or Protocol.of(data)
    rules = {key: value for key, value in protocol.to_dict().items() if key not in _NO_RULES}
    return SweepSettings(
        dataset=protocol.dataset or data.name,
        split=protocol.split,
        queries=len(data.query),
        gallery=len(data.gallery),
        data_sha256=_digest(data),
        kinds=tuple((kind.name, f"{_FROM[kind.place]}; {kind.stock}") for kind in kinds),
        severities=tuple(shares),
        seeds=wanted,
        rules=plain(rules),
        version=__version__,
        bootstrap=protocol.bootstrap,
        confidence=protocol.confidence,
    )


def is_sweep_of(found: Sweep, model: ReIDModel, settings: SweepSettings) -> bool:
    """Tell whether a sweep that was read from a file is what sweeping this model would give again."""
    return (
        found.settings == settings
        and found.model == model.fingerprint
        and dict(found.matcher) == plain(model.matcher.config)
    )


def plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping as it comes back from JSON, so that what was read compares equal to what was written."""
    read: dict[str, Any] = json.loads(json.dumps(content, sort_keys=True))
    return read


def _require_masks(data: ReIDData) -> None:
    """Refuse before anything is embedded."""
    without = [sample.name for sample in data.query if sample.mask is None]
    if without:
        raise MaskError(
            f"{len(without)} of {len(data.query)} queries have no part mask, the first '{without[0]}'; without masks "
            "the occluded share of a body is unknown. Give masks=FOLDER (--masks) with one single-channel PNG "
            "for each image; occluded-reid parse makes them."
        )


def _digest(data: ReIDData) -> str:
    """Hash of what is measured: who is asked for and searched, their images and their masks."""
    digest = hashlib.sha256()
    for side in (data.query, data.gallery):
        for sample in side:
            digest.update(json.dumps([sample.name, sample.identity, sample.camera]).encode())
            digest.update(_content(sample.path, ImageError))
            digest.update(b"" if sample.mask is None else _content(sample.mask, MaskError))
        digest.update(b"|")
    return digest.hexdigest()


def _content(path: Path, error: type[ImageError] | type[MaskError]) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as cause:
        raise error(f"'{path}' cannot be read: {cause.strerror or cause}. Look at the file.") from cause
