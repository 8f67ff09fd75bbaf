"""The package's public names, each said once.

A type checker reads them here; at run time each is imported from the module beside it when it is first used. A name
that is added here is public.
"""

from ._version import __version__
from .association import Association, Tracks, associate, calibrate_joins
from .backbones.base import Backbone
from .calibration.calibration import Calibration
from .config import Recipe, load_recipe
from .contracts import (
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
from .data import Benchmark, benchmark_of
from .data.crops import crops
from .data.dataset import ReIDData, Sample, load_dataset
from .data.tracklet import Tracklet
from .embeddings import EmbeddedSet, PartEmbeddings
from .errors import OccludedReIDError
from .evaluation import (
    Failures,
    Protocol,
    Report,
    compare,
    embed_samples,
    evaluate,
    evaluate_matrix,
    find_failures,
)
from .evaluation.open_set import open_set_study
from .evaluation.same import Verdict, same
from .evaluation.studies.study import evaluate_model, study
from .evaluation.studies.sweep import Sweeps, sweep
from .evaluation.studies.tuning import Tuned, tune_model
from .gallery import Gallery, Hit
from .gallery.filters.conditions import field
from .heads.base import Head
from .losses.base import Loss
from .matchers import (
    DistanceSumMatcher,
    PlainMatcher,
    PublicDistanceMatcher,
    VisibilityWeightedMatcher,
)
from .matchers.base import Matcher
from .models import Preprocess, ReIDModel, build_model, list_models, load_model
from .models.tracklets import tracklet_embeddings
from .parsing.write import parse_folder
from .registry import (
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
from .search.index.base import SlotIndex
from .search.projection import Reduction
from .search.rerank.bridge import Bridge
from .search.rerank.k_reciprocal import KReciprocal
from .training import Trainer, train
from .training.parser import train_parser

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
    "Bridge",
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
    "field",
    "find_failures",
    "list_models",
    "load_dataset",
    "load_model",
    "load_recipe",
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
