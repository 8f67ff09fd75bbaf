"""Counting what a loader does not load, so that its notes can say it: nothing is left out without a word."""

from __future__ import annotations

__all__ = ["LeftOut"]

_NAMED = 3


class LeftOut:
    """What is left out of a data set, by reason, in the order in which it was found.

    Example:
        >>> left_out = LeftOut()
        >>> left_out.add("a/2.jpg", "links that lead nowhere")
        >>> left_out.add("b/1.jpg", "links that lead nowhere")
        >>> left_out.notes("query: ")
        ['query: 2 files left out, links that lead nowhere (a/2.jpg, b/1.jpg)']
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[str]] = {}

    def add(self, name: str, reason: str, what: str = "files") -> None:
        """Count one more.

        Args:
            name: of the file or folder, relative to what the notes are about.
            reason: why it is left out.
            what: of which kind it is, in the plural.
        """
        self._found.setdefault((what, reason), []).append(name)

    def take(self, other: LeftOut, where: str = "") -> None:
        """Count what another one has counted too, under names that begin with `where`."""
        for (what, reason), names in other._found.items():
            self._found.setdefault((what, reason), []).extend(f"{where}{name}" for name in names)

    def notes(self, where: str = "", *, named: int = _NAMED) -> list[str]:
        """Return a note for each reason, with the count and the first names.

        Args:
            where: what each note begins with.
            named: how many names stand in a note.
        """
        return [
            f"{where}{len(names)} {what} left out, {reason} "
            f"({', '.join(sorted(names)[:named])}{', …' if len(names) > named else ''})"
            for (what, reason), names in self._found.items()
        ]
