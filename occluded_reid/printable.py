"""Text from strangers (names of files, keys, identities, causes of errors), made harmless for a terminal."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]

# Joiners that spell words of some languages and change nothing else.
_HARMLESS = frozenset("\u200c\u200d")
# Controls (a terminal obeys them), invisible formats (they turn the order of what is read), halves of characters (a
# name that is not UTF-8), and the two separators that break lines.
_DANGEROUS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: object, *, keep: str = "") -> str:
    r"""Return a text with everything that a terminal would obey, or that nobody could see, written out.

    Args:
        text: what is to be shown; anything but a text is turned into one.
        keep: characters that stay as they are, such as line breaks of one's own.

    Example:
        >>> print(printable("a\x1b[2J\n\u202egpj.exe"))
        a\x1b[2J\n\u202egpj.exe
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        _written_out(character)
        if character not in keep and character not in _HARMLESS and unicodedata.category(character) in _DANGEROUS
        else character
        for character in shown
    )


def _written_out(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python keeps it in the names of files
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
