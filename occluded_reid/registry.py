"""Registries: names for backbones, heads, losses, matchers, models, data sets, indexes and parsers.

A registry maps a name to an object or to a string ``"module:attribute"`` that is imported on the first look-up, so that
nothing has to be imported beforehand and "forgot to import" cannot happen. Third-party packages plug in through the
entry-point group ``occluded_reid.<kind>``.
"""

from __future__ import annotations

import fnmatch
import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from occluded_reid.arguments import checked
from occluded_reid.errors import DuplicateNameError, PluginWarning, RegistryError, UnknownNameError
from occluded_reid.options import check_options, did_you_mean

if TYPE_CHECKING:
    from occluded_reid.backbones.base import Backbone
    from occluded_reid.data.dataset import ReIDData
    from occluded_reid.heads.base import Head
    from occluded_reid.losses.base import Loss
    from occluded_reid.matchers.base import Matcher
    from occluded_reid.search.index.base import SlotIndex

__all__ = [
    "BACKBONES",
    "DATASETS",
    "HEADS",
    "INDEXES",
    "LOSSES",
    "MATCHERS",
    "MODELS",
    "PARSERS",
    "Registry",
    "check_options",
    "did_you_mean",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Names of one kind of object, found by name, by alias, or through a plug-in's entry point.

    Args:
        kind: what is registered, singular, as errors say it: "head"; plug-ins use its plural as entry-point group.
        builtins: names of the library's own objects, as ``"module:attribute"``, imported on first look-up.
        aliases: other names of built-ins.

    Example:
        >>> registry: Registry[list[int]] = Registry("list")
        >>> @registry.register("pair", aliases=("two",))
        ... def pair(first: int, *, second: int = 2) -> list[int]:
        ...     return [first, second]
        >>> registry.create("two", 1, second=3)
        [1, 3]
        >>> "pair" in registry, registry.names()
        (True, ['pair'])
    """

    def __init__(
        self, kind: str, builtins: Mapping[str, str] | None = None, aliases: Mapping[str, str] | None = None
    ) -> None:
        self.kind = kind
        self.group = f"occluded_reid.{kind}{'es' if kind.endswith(('s', 'x')) else 's'}"
        self._builtins = dict(builtins or {})
        self._entries: dict[str, Callable[..., T] | str] = dict(self._builtins)
        self._aliases: dict[str, str] = dict(aliases or {})
        self._plugins: dict[str, EntryPoint] | None = None

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}, {len(self.names())} names)"

    @checked(RegistryError)
    def register(self, name: str, aliases: Sequence[str] = (), *, override: bool = False) -> Callable[[F], F]:
        """Return a decorator that registers a class or factory; also usable as ``register("x")(cls)``.

        Args:
            name: the name to register under.
            aliases: other names for the same object.
            override: replace what holds a name already, on purpose.

        Raises:
            DuplicateNameError: a name is taken by something else; the message names its owner.
        """

        def decorate(target: F) -> F:
            for candidate in (name, *aliases):
                if not override and not self._is_same(candidate, name, target):
                    self._refuse_taken(candidate)
            self._aliases.pop(name, None)  # overridden: from now on a name of its own
            self._entries[name] = target
            for alias in aliases:
                self._aliases[alias] = name
            return target

        return decorate

    def unregister(self, name: str) -> None:
        """Forget a name and its aliases; a built-in comes back as the library's own object.

        Raises:
            UnknownNameError: nothing of that name is registered.
        """
        if name not in self._entries:
            raise self._unknown(name)
        del self._entries[name]
        if name in self._builtins:
            self._entries[name] = self._builtins[name]
        else:
            self._aliases = {alias: owner for alias, owner in self._aliases.items() if owner != name}

    def get(self, name: str) -> Callable[..., T]:
        """Return the class or factory of that name.

        Raises:
            UnknownNameError: nothing is registered under that name; the message suggests the closest ones.
            RegistryError: a plug-in of that name exists but cannot be loaded.
        """
        if not isinstance(name, str):
            raise self._unknown(repr(name))
        canonical = self._aliases.get(name, name)
        entry = self._entries.get(canonical)
        if entry is None:
            plugin = self._find_plugins().get(canonical)
            if plugin is None:
                raise self._unknown(name)
            self._load_plugin(plugin)
            entry = self._entries.get(canonical)
            if entry is None:
                raise RegistryError(
                    f"the plug-in that offers the {self.kind} '{name}' ({plugin.value}) failed to load; "
                    "see the warning above, then update or uninstall that package."
                )
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = cast("Callable[..., T]", getattr(importlib.import_module(module), attribute))
            self._entries[canonical] = entry
        return entry

    def create(self, name: str, /, *args: Any, **options: Any) -> T:
        """Look a name up and call it with options that were checked against its signature.

        Raises:
            UnknownNameError: as `get`.
            UnknownOptionError: the target takes no such keyword, or not a value of that type.
        """
        target = self.get(name)
        return target(*args, **check_options(target, options, f"{self.kind} '{name}'", skip=len(args)))

    def names(self, pattern: str = "*") -> list[str]:
        """Return the sorted names that match a shell pattern; aliases are left out.

        Example:
            >>> MATCHERS.names("vis*")
            ['visibility_weighted']
        """
        return sorted(fnmatch.filter({*self._entries, *self._find_plugins()}, pattern))

    def aliases(self) -> dict[str, str]:
        """Return a copy of the map from alias to name."""
        return dict(self._aliases)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._aliases or name in self._find_plugins()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def _is_same(self, candidate: str, name: str, target: Any) -> bool:
        """Whether `candidate` is free, or is the very object that is being registered (a module imported twice)."""
        where = f"{getattr(target, '__module__', '?')}:{getattr(target, '__qualname__', '?')}"
        if candidate in self._aliases:
            return candidate != name and self._aliases[candidate] == name and self._owner(name) == where
        plugin = None if candidate in self._entries else self._find_plugins().get(candidate)
        if plugin is not None and plugin.module.partition(".")[0] == where.partition(":")[0].partition(".")[0]:
            return True  # a plug-in may decorate, in any of its modules, what its entry point announces
        return candidate not in self or self._owner(candidate) == where

    def _owner(self, name: str) -> str:
        entry = self._entries.get(name)
        if entry is None:
            plugin = self._find_plugins().get(name)
            return plugin.value if plugin else "nothing"
        return entry if isinstance(entry, str) else f"{entry.__module__}:{getattr(entry, '__qualname__', entry)}"

    def _refuse_taken(self, name: str) -> None:
        owner = self._aliases.get(name, name)
        alias = f", as another name of '{owner}'" if owner != name else ""
        raise DuplicateNameError(
            f"the {self.kind} name '{name}' is taken by {self._owner(owner)}{alias}. "
            "Choose another name, or pass override=True to replace it on purpose."
        )

    def _unknown(self, name: str) -> UnknownNameError:
        known = self.names()
        shown = ", ".join(known[:40]) + (", …" if len(known) > 40 else "")
        hint = did_you_mean(name, [*known, *self._aliases])
        return UnknownNameError(f"no {self.kind} is named '{name}'.{hint} Registered: {shown or 'nothing yet'}.")

    def _find_plugins(self) -> dict[str, EntryPoint]:
        """Entry points of this kind by name; found once, loaded on first need of that name."""
        if self._plugins is None:
            found: dict[str, EntryPoint] = {}
            for point in sorted(entry_points(group=self.group), key=lambda p: (p.name, p.value)):
                owner = self._aliases.get(point.name, point.name)
                taken = self._builtins.get(owner) or (found[point.name].value if point.name in found else None)
                if taken is None:
                    found[point.name] = point
                elif taken != point.value:
                    warnings.warn(
                        f"the plug-in '{point.name}' of {self.group} ({point.value}) is left out: that name is taken "
                        f"by {taken}. Its author should choose another name.",
                        PluginWarning,
                        stacklevel=4,
                    )
            self._plugins = found
        return self._plugins

    def _load_plugin(self, point: EntryPoint) -> None:
        try:
            loaded = point.load()
        except KeyboardInterrupt:
            raise
        # Whatever a stranger's package raises while it is imported, sys.exit() included, must not end the process or
        # take the built-ins down with it.
        except BaseException as error:  # noqa: BLE001
            warnings.warn(
                f"the plug-in '{point.name}' of {self.group} ({point.value}) could not be loaded: "
                f"{type(error).__name__}: {error}",
                PluginWarning,
                stacklevel=4,
            )
            return
        self._entries.setdefault(point.name, loaded)


BACKBONES: Registry[Backbone] = Registry(
    "backbone",
    {
        "onnx": "occluded_reid.backbones.onnx:OnnxBackbone",
        "openvino": "occluded_reid.backbones.openvino:OpenVINOBackbone",
        "osnet": "occluded_reid.backbones.osnet:OSNet",
        "resnet50_ibn_a": "occluded_reid.backbones.ibn:ResNet50IBNa",
        "timm": "occluded_reid.backbones.timm:TimmBackbone",
    },
)
HEADS: Registry[Head] = Registry(
    "head",
    {
        "center_focus": "occluded_reid.heads.center_focus:CenterFocusHead",
        "class_token": "occluded_reid.heads.class_token:ClassTokenHead",
        "concat": "occluded_reid.heads.concat:ConcatHead",
        "converter": "occluded_reid.heads.converter:ConverterHead",
        "embedding": "occluded_reid.heads.embedding:EmbeddingHead",
        "exported": "occluded_reid.heads.exported:ExportedHead",
        "feature_diffusion": "occluded_reid.heads.feature_diffusion:FeatureDiffusionHead",
        "global": "occluded_reid.heads.global_:GlobalHead",
        "local": "occluded_reid.heads.local:LocalHead",
        "memory": "occluded_reid.heads.memory:MemoryHead",
        "occlusion_erasing": "occluded_reid.heads.occlusion_erasing:OcclusionErasingHead",
        "part_attention": "occluded_reid.heads.part_attention:PartAttentionHead",
        "region_pooling": "occluded_reid.heads.region_pooling:RegionPoolingHead",
        "regions": "occluded_reid.heads.regions:RegionsHead",
        "relation": "occluded_reid.heads.relation:RelationHead",
        "semantic": "occluded_reid.heads.semantic:SemanticHead",
    },
    {"ram": "relation"},
)
LOSSES: Registry[Loss] = Registry(
    "loss",
    {
        "center": "occluded_reid.losses.center:CenterLoss",
        "consistency": "occluded_reid.losses.consistency:ConsistencyLoss",
        "distillation": "occluded_reid.losses.distillation:DistillationLoss",
        "identity": "occluded_reid.losses.identity:IdentityLoss",
        "memory_contrast": "occluded_reid.losses.memory_contrast:MemoryContrastLoss",
        "occlusion_scores": "occluded_reid.losses.occlusion_scores:OcclusionScoresLoss",
        "part_triplet": "occluded_reid.losses.part_triplet:PartTripletLoss",
        "segmentation": "occluded_reid.losses.segmentation:SegmentationLoss",
        "separation": "occluded_reid.losses.separation:SeparationLoss",
        "spc": "occluded_reid.losses.spc:SPCLoss",
        "triplet": "occluded_reid.losses.triplet:TripletLoss",
        "visible_part": "occluded_reid.losses.visible_part:VisiblePartLoss",
    },
)
MATCHERS: Registry[Matcher] = Registry(
    "matcher",
    {
        "distance_sum": "occluded_reid.matchers.distance_sum:DistanceSumMatcher",
        "plain": "occluded_reid.matchers.plain:PlainMatcher",
        "public_distance": "occluded_reid.matchers.public_distance:PublicDistanceMatcher",
        "visibility_weighted": "occluded_reid.matchers.visibility_weighted:VisibilityWeightedMatcher",
    },
)
MODELS: Registry[Any] = Registry("model")
DATASETS: Registry[ReIDData] = Registry(
    "dataset",
    {
        "cuhk03": "occluded_reid.data.benchmarks.cuhk03:load_cuhk03",
        "dukemtmc_reid": "occluded_reid.data.benchmarks.dukemtmc:load_dukemtmc_reid",
        "folder": "occluded_reid.data.folder:load_folder",
        "images": "occluded_reid.data.unlabelled:load_images",
        "market1501": "occluded_reid.data.benchmarks.market1501:load_market1501",
        "occluded_duke": "occluded_reid.data.benchmarks.occluded_duke:load_occluded_duke",
        "msmt17": "occluded_reid.data.benchmarks.msmt17:load_msmt17",
        "occluded_reid": "occluded_reid.data.benchmarks.occluded_reid_set:load_occluded_reid",
        "p_dukemtmc": "occluded_reid.data.benchmarks.p_dukemtmc:load_p_dukemtmc",
        "partial_ilids": "occluded_reid.data.benchmarks.partial_ilids:load_partial_ilids",
        "partial_reid": "occluded_reid.data.benchmarks.partial_reid:load_partial_reid",
        "synthetic": "occluded_reid.data.synthetic.load:load_synthetic",
    },
    {
        "dukemtmc": "dukemtmc_reid",
        "occluded_dukemtmc": "occluded_duke",
        "p_dukemtmc_reid": "p_dukemtmc",
    },
)
INDEXES: Registry[SlotIndex] = Registry("index", {"faiss": "occluded_reid.search.index.faiss:FaissIndex"})
PARSERS: Registry[Any] = Registry(
    "parser",
    {
        "deeplabv3": "occluded_reid.parsing.deeplabv3:DeepLabV3Parser",
        "masks": "occluded_reid.parsing.masks:MaskFolder",
        "onnx": "occluded_reid.parsing.onnx:OnnxTeacher",
        "small": "occluded_reid.parsing.small:SmallParser",
    },
)
