"""Loading the synthetic set like any other, drawing it first where it does not exist yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from occluded_reid.data.benchmarks.market1501 import load_market1501
from occluded_reid.data.dataset import ReIDData
from occluded_reid.data.synthetic.generate import LISTING, generate
from occluded_reid.data.synthetic.options import SyntheticOptions
from occluded_reid.errors import DataError
from occluded_reid.files import absolute, is_file
from occluded_reid.registry import DATASETS

__all__ = ["load_synthetic"]


@DATASETS.register("synthetic")
def load_synthetic(
    root: str | Path,
    *,
    draw_seed: int = 0,
    train_identities: int = SyntheticOptions.train_identities,
    test_identities: int = SyntheticOptions.test_identities,
) -> ReIDData:
    """Load a folder of synthetic pedestrians, or draw it if the folder does not exist or is empty.

    Args:
        root: the folder.
        draw_seed: seed of a set that is drawn now.
        train_identities: of a set that is drawn now.
        test_identities: of a set that is drawn now.

    Raises:
        DataError: the folder holds something else.
    """
    root = absolute(root, DataError)
    if not is_file(root / LISTING, DataError):
        options = SyntheticOptions(seed=draw_seed, train_identities=train_identities, test_identities=test_identities)
        generate(root, options)
    data = load_market1501(root, own=True)
    return replace(data, name="synthetic", licence="drawn by this library: free of people and of rights")
