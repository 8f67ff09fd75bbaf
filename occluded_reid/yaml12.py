"""YAML as people read it (the core schema of YAML 1.2), and no more of it than a recipe needs.

`on`, `off`, `yes`, `no`, `1:30`, `1_000` and dates are words, 1e-4 and 010 are numbers (ten), unlike PyYAML's 1.1. What
a stranger's file could do harm with is refused with its line: a key given twice, references that unfold to a great many
values or to themselves, deep nesting, tags for other things than text, numbers, lists and mappings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

__all__ = ["parse_yaml"]

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_DEEPEST = 50
_MOST_VALUES = 100_000  # after every reference has been unfolded
_LARGEST = 2**63


class _Loader(yaml.SafeLoader):
    """The safe loader with the types of YAML 1.2's core schema, and with bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Node | None, index: int) -> Node:
        """Compose one value, counting what it unfolds to."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        alias, before = isinstance(event, yaml.AliasEvent), self._values
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ConstructorError(None, None, f"values are nested more than {_DEEPEST} deep", event.start_mark)
        node = cast(Node, super().compose_node(parent, index))
        self._depth -= 1
        if alias:
            if id(node) not in self._sizes:
                raise ConstructorError(None, None, f"'*{event.anchor}' refers to itself", event.start_mark)
            self._values += self._sizes[id(node)]
        else:
            self._values += 1
            self._sizes[id(node)] = self._values - before
        if self._values > _MOST_VALUES:
            raise ConstructorError(
                None, None, f"it holds more than {_MOST_VALUES} values, references unfolded", event.start_mark
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """Compose a mapping, refusing a key that it has already."""
        node: MappingNode = super().compose_mapping_node(anchor)
        seen: dict[Any, Node] = {}
        pairs: list[tuple[Any, Node]] = node.value
        for key, _ in pairs:
            if isinstance(key, CollectionNode):
                raise ConstructorError(None, None, "a list or a mapping cannot be a key", key.start_mark)
            name = key.value if key.tag == _MERGE else self.construct_object(key)  # 010 and 10 are one key
            if name in seen:
                line = seen[name].start_mark.line + 1
                raise ConstructorError(
                    None, None, f"the key '{key.value}' is given twice, first in line {line}", key.start_mark
                )
            seen[name] = key
        return node


def _null(_: str) -> None:
    return None


def _bool(text: str) -> bool:
    return text.lower() == "true"


def _int(text: str) -> int:
    if len(text) > 25 or not -_LARGEST <= (value := int(text, 0 if text[:2] in ("0x", "0o") else 10)) < _LARGEST:
        raise OverflowError("it is too large a number")
    return value


def _float(text: str) -> float:
    return float(re.sub(r"\.(?=inf$|nan$)", "", text.lower()))


# Tag: how a word of that kind looks, its first letters, and how it is read.
_WORDS: Mapping[str, tuple[re.Pattern[str], list[str], Callable[[str], Any]]] = {
    "null": (re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""], _null),
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"), _bool),
    "int": (re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789"), _int),
    "float": (
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
        _float,
    ),
}


def _read_word(loader: _Loader, node: ScalarNode) -> Any:
    text, kind = str(loader.construct_scalar(node)), node.tag.removeprefix(_TAG)
    pattern, _, read = _WORDS[kind]
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    if not pattern.match(text):
        raise ConstructorError(None, None, f"'{shown}' cannot be read as {kind}", node.start_mark)
    try:
        return read(text)
    except OverflowError as cause:
        raise ConstructorError(None, None, f"'{shown}' cannot be read: {cause}", node.start_mark) from cause


_Loader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first, _) in _WORDS.items():
    _Loader.add_implicit_resolver(_TAG + _kind, _pattern, _first)
_Loader.add_implicit_resolver(_MERGE, re.compile(r"^<<$"), ["<"])
_Loader.yaml_constructors = {
    **{_TAG + kind: _read_word for kind in _WORDS},
    **{_TAG + kind: yaml.SafeLoader.yaml_constructors[_TAG + kind] for kind in ("str", "seq", "map")},
    None: yaml.SafeLoader.yaml_constructors[None],  # any other tag: an error that names it
}


def parse_yaml(text: str) -> Any:
    """Parse one YAML document.

    Raises:
        yaml.YAMLError: the text is not valid YAML, or does what the head of this module says is refused.

    Example:
        >>> parse_yaml("{on: off, lr: 1e-4, flag: true, rows: 010, at: 1:30}")
        {'on': 'off', 'lr': 0.0001, 'flag': True, 'rows': 10, 'at': '1:30'}
    """
    return yaml.load(text, Loader=_Loader)  # a subclass of the safe loader
