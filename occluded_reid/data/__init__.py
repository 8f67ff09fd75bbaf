"""Data sets on disk, images and masks, occlusion, and the batches that training takes from them."""

from importlib import import_module
from typing import TYPE_CHECKING

# `holdout` is the name of a function and of its module. Imported here, before anybody can import the module by itself,
# the package's attribute is always the function. The other names are imported on first use.
from occluded_reid.data.dataset import ReIDData, Sample, load_dataset
from occluded_reid.data.holdout import holdout, validation_side
from occluded_reid.data.partition import Partition

_HOME = {
    "Benchmark": "benchmark",
    "Counts": "benchmark",
    "DatasetReport": "verify",
    "DecodedImages": "cache",
    "Layout": "benchmark",
    "SyntheticOptions": "synthetic",
    "TrainLoader": "loader",
    "benchmark_of": "benchmark",
    "compare_counts": "counts",
    "described": "benchmark",
    "extract_cuhk03": "benchmarks.cuhk03_mat",
    "generate": "synthetic",
    "merge_classes": "images",
    "occlude": "occlusion",
    "open_image": "images",
    "open_mask": "images",
    "verify_dataset": "verify",
}

if TYPE_CHECKING:
    from occluded_reid.data.benchmark import Benchmark, Counts, Layout, benchmark_of, described
    from occluded_reid.data.benchmarks.cuhk03_mat import extract_cuhk03
    from occluded_reid.data.cache import DecodedImages
    from occluded_reid.data.counts import compare_counts
    from occluded_reid.data.images import merge_classes, open_image, open_mask
    from occluded_reid.data.loader import TrainLoader
    from occluded_reid.data.occlusion import occlude
    from occluded_reid.data.synthetic import SyntheticOptions, generate
    from occluded_reid.data.verify import DatasetReport, verify_dataset
else:

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'occluded_reid.data' has no attribute '{name}'")
        value = getattr(import_module(f"occluded_reid.data.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOME})


__all__ = [
    "Benchmark",
    "Counts",
    "DatasetReport",
    "DecodedImages",
    "Layout",
    "Partition",
    "ReIDData",
    "Sample",
    "SyntheticOptions",
    "TrainLoader",
    "benchmark_of",
    "compare_counts",
    "described",
    "extract_cuhk03",
    "generate",
    "holdout",
    "load_dataset",
    "merge_classes",
    "occlude",
    "open_image",
    "open_mask",
    "validation_side",
    "verify_dataset",
]
