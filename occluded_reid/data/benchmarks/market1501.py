"""Market-1501: six cameras before a supermarket; its layout is that of many other data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from occluded_reid.data.benchmark import Benchmark, Counts, described
from occluded_reid.data.benchmarks.market_style import PATTERN, load_market_style, market_layouts
from occluded_reid.data.dataset import ReIDData
from occluded_reid.registry import DATASETS

__all__ = ["MARKET1501", "load_market1501"]

_JUNK, _DISTRACTOR = -1, 0

MARKET1501 = Benchmark(
    name="market1501",
    title="Market-1501",
    layouts=market_layouts("0002_c1s1_000451_03.jpg"),
    identity_rule="number before the first underscore",
    camera_rule="number after _c, from 1; gallery images of the query's identity and camera are dropped",
    cameras=6,
    first_camera=1,
    counts={"": {"train": Counts(12_936, 751), "query": Counts(3_368, 750), "gallery": Counts(15_913, 750)}},
    trained_on=("market1501",),
    pattern=PATTERN,
    distractors="images of 0000 in the gallery: wrong answers to every query, never trained on or asked for",
    junk="images of identity -1 are dropped everywhere: 3,819 of the 19,732 files of bounding_box_test",
    metrics=("Rank-1", "Rank-5", "Rank-10", "mAP"),
    licence="Market-1501: for research, as its authors distribute it (data in this layout may have other terms)",
    citation="Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015",
    traps=(
        "papers state a gallery of 19,732 files; 15,913 images are ranked, because junk is no wrong answer either",
        "0000 stays in the gallery: dropping it makes the numbers better than those of papers",
        "images of your own in this layout are something else: load them with own=true",
        "gt_bbox/ and gt_query/ are for the multi-query setting and not read",
    ),
)


@DATASETS.register("market1501")
@described(MARKET1501)
def load_market1501(root: str | Path, *, train_only: bool | None = None, own: bool = False) -> ReIDData:
    """Load ``bounding_box_train/``, ``query/`` and ``bounding_box_test/``, or only the first (then use a hold-out).

    Identity and camera come from names such as ``0002_c1s1_000451_03.jpg`` (camera 1). Images of
    identity -1 are junk and dropped; those of 0000 are distractors: kept in the gallery, never trained on or asked for.
    Part masks in ``masks/`` and occluder masks in ``occlusion/`` beside the three folders, mirroring them, are attached
    where they exist (the synthetic set has them).

    Args:
        root: the folder that holds the three folders.
        train_only: True leaves queries and gallery alone, False insists on all three folders; None takes what is there.
        own: these are other images in the same layout: what is known about Market-1501 is not said of them, nor are
            they compared with it.

    Raises:
        DataError: the folder is one too high, one too low, empty, lacks a folder, or holds no image with such a name.
    """
    data = load_market_style(root, MARKET1501, train_only=train_only, junk={_JUNK}, nobody={_DISTRACTOR})
    if not own:
        return data
    # Published data keep their name wherever they lie: who was tuned or trained on is looked up by it.
    return replace(data, name=data.root.resolve().name or "own", benchmark=None, licence="", citation="")
