"""occluded_reid: find a person again across cameras although half of the person is hidden.

Everything a user needs is importable from here; torch is loaded on first use of a name that needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from occluded_reid._version import __version__
from occluded_reid.moved import find_moved

find_moved()

_HOME = {
    "Association": "association",
    "BACKBONES": "registry",
    "Backbone": "backbones.base",
    "Batch": "contracts",
    "Benchmark": "data",
    "BuildInfo": "contracts",
    "Calibration": "calibration.calibration",
    "DATASETS": "registry",
    "DistanceSumMatcher": "matchers",
    "EmbeddedSet": "embeddings",
    "Failures": "evaluation",
    "FeatureMaps": "contracts",
    "Gallery": "gallery",
    "HEADS": "registry",
    "Head": "heads.base",
    "HeadInfo": "contracts",
    "HeadOutput": "contracts",
    "Hit": "gallery",
    "INDEXES": "registry",
    "KReciprocal": "search.rerank.k_reciprocal",
    "LOSSES": "registry",
    "Loss": "losses.base",
    "MATCHERS": "registry",
    "MODELS": "registry",
    "MapInfo": "contracts",
    "Matcher": "matchers.base",
    "ModelOutput": "contracts",
    "OccludedReIDError": "errors",
    "PARSERS": "registry",
    "PartEmbeddings": "embeddings",
    "PlainMatcher": "matchers",
    "Preprocess": "models",
    "Protocol": "evaluation",
    "PublicDistanceMatcher": "matchers",
    "ReIDData": "data.dataset",
    "ReIDModel": "models",
    "Recipe": "config",
    "Reduction": "search.projection",
    "RegionParser": "contracts",
    "Registry": "registry",
    "Report": "evaluation",
    "Sample": "data.dataset",
    "SlotIndex": "search.index.base",
    "Sweeps": "evaluation.studies.sweep",
    "Targets": "contracts",
    "Tracklet": "data.tracklet",
    "Tracks": "association",
    "Trainer": "training",
    "Tuned": "evaluation.studies.tuning",
    "Verdict": "evaluation.same",
    "VisibilityWeightedMatcher": "matchers",
    "associate": "association",
    "benchmark_of": "data",
    "calibrate_joins": "association",
    "build_model": "models",
    "compare": "evaluation",
    "crops": "data.crops",
    "embed_samples": "evaluation",
    "evaluate": "evaluation",
    "evaluate_matrix": "evaluation",
    "evaluate_model": "evaluation.studies.study",
    "extract_cuhk03": "data",
    "field": "gallery.filters.conditions",
    "find_failures": "evaluation",
    "list_models": "models",
    "load_dataset": "data.dataset",
    "load_model": "models",
    "load_recipe": "config",
    "open_kinds": "data.occlusion",
    "open_set_study": "evaluation.open_set",
    "parse_folder": "parsing.write",
    "same": "evaluation.same",
    "study": "evaluation.studies.study",
    "sweep": "evaluation.studies.sweep",
    "tracklet_embeddings": "models.tracklets",
    "train": "training",
    "train_parser": "training.parser",
    "tune_model": "evaluation.studies.tuning",
}

if TYPE_CHECKING:
    from occluded_reid.association import Association, Tracks, associate, calibrate_joins
    from occluded_reid.backbones.base import Backbone
    from occluded_reid.calibration.calibration import Calibration
    from occluded_reid.config import Recipe, load_recipe
    from occluded_reid.contracts import (
        Batch,
        BuildInfo,
        FeatureMaps,
        HeadInfo,
        HeadOutput,
        MapInfo,
        ModelOutput,
        RegionParser,
        Targets,
    )
    from occluded_reid.data import Benchmark, benchmark_of, extract_cuhk03
    from occluded_reid.data.crops import crops
    from occluded_reid.data.dataset import ReIDData, Sample, load_dataset
    from occluded_reid.data.occlusion import open_kinds
    from occluded_reid.data.tracklet import Tracklet
    from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
    from occluded_reid.errors import OccludedReIDError
    from occluded_reid.evaluation import (
        Failures,
        Protocol,
        Report,
        compare,
        embed_samples,
        evaluate,
        evaluate_matrix,
        find_failures,
    )
    from occluded_reid.evaluation.open_set import open_set_study
    from occluded_reid.evaluation.same import Verdict, same
    from occluded_reid.evaluation.studies.study import evaluate_model, study
    from occluded_reid.evaluation.studies.sweep import Sweeps, sweep
    from occluded_reid.evaluation.studies.tuning import Tuned, tune_model
    from occluded_reid.gallery import Gallery, Hit
    from occluded_reid.gallery.filters.conditions import field
    from occluded_reid.heads.base import Head
    from occluded_reid.losses.base import Loss
    from occluded_reid.matchers import (
        DistanceSumMatcher,
        PlainMatcher,
        PublicDistanceMatcher,
        VisibilityWeightedMatcher,
    )
    from occluded_reid.matchers.base import Matcher
    from occluded_reid.models import Preprocess, ReIDModel, build_model, list_models, load_model
    from occluded_reid.models.tracklets import tracklet_embeddings
    from occluded_reid.parsing.write import parse_folder
    from occluded_reid.registry import (
        BACKBONES,
        DATASETS,
        HEADS,
        INDEXES,
        LOSSES,
        MATCHERS,
        MODELS,
        PARSERS,
        Registry,
    )
    from occluded_reid.search.index.base import SlotIndex
    from occluded_reid.search.projection import Reduction
    from occluded_reid.search.rerank.k_reciprocal import KReciprocal
    from occluded_reid.training import Trainer, train
    from occluded_reid.training.parser import train_parser
else:

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'occluded_reid' has no attribute '{name}'")
        value = getattr(import_module(f"occluded_reid.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOME})


__all__ = [
    "BACKBONES",
    "DATASETS",
    "HEADS",
    "INDEXES",
    "LOSSES",
    "MATCHERS",
    "MODELS",
    "PARSERS",
    "Association",
    "Backbone",
    "Batch",
    "Benchmark",
    "BuildInfo",
    "Calibration",
    "DistanceSumMatcher",
    "EmbeddedSet",
    "Failures",
    "FeatureMaps",
    "Gallery",
    "Head",
    "HeadInfo",
    "HeadOutput",
    "Hit",
    "KReciprocal",
    "Loss",
    "MapInfo",
    "Matcher",
    "ModelOutput",
    "OccludedReIDError",
    "PartEmbeddings",
    "PlainMatcher",
    "Preprocess",
    "Protocol",
    "PublicDistanceMatcher",
    "ReIDData",
    "ReIDModel",
    "Recipe",
    "Reduction",
    "RegionParser",
    "Registry",
    "Report",
    "Sample",
    "SlotIndex",
    "Sweeps",
    "Targets",
    "Tracklet",
    "Tracks",
    "Trainer",
    "Tuned",
    "Verdict",
    "VisibilityWeightedMatcher",
    "__version__",
    "associate",
    "benchmark_of",
    "build_model",
    "calibrate_joins",
    "compare",
    "crops",
    "embed_samples",
    "evaluate",
    "evaluate_matrix",
    "evaluate_model",
    "extract_cuhk03",
    "field",
    "find_failures",
    "list_models",
    "load_dataset",
    "load_model",
    "load_recipe",
    "open_kinds",
    "open_set_study",
    "parse_folder",
    "same",
    "study",
    "sweep",
    "tracklet_embeddings",
    "train",
    "train_parser",
    "tune_model",
]
