"""``milvus://user:password@host:port/collection``: where a gallery on a server is."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from occluded_reid.errors import GalleryError
from occluded_reid.registry import did_you_mean

__all__ = ["SCHEME", "MilvusAddress"]

SCHEME = "milvus://"

_CONSISTENCY = ("Strong", "Session", "Bounded", "Eventually")
_OPTIONS = ("consistency", "database", "timeout", "tls")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_EXAMPLE = "milvus://localhost:19530/gallery"


@dataclass(frozen=True)
class MilvusAddress:
    """An address, taken apart; printed, it never shows the password.

    Attributes:
        host: of the server.
        port: of the server.
        collection: name of the gallery there.
        user: for servers that ask who it is; empty otherwise.
        password: of the user, or a token where the user is empty.
        database: of the server; empty for its default.
        tls: whether the connection is encrypted.
        consistency: what reads must have seen. "Strong": all writes that were acknowledged. "Session": what this
            program has written; the writes of others a little later. "Bounded", "Eventually": looser still, and faster.
        timeout: seconds for which a call is repeated, with pauses that grow, while the server does not answer.
    """

    host: str
    port: int
    collection: str
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    tls: bool = False
    consistency: str = "Strong"
    timeout: float = 60.0

    @staticmethod
    def parse(text: str) -> MilvusAddress:
        """Take an address apart.

        Args:
            text: ``milvus://[user[:password]@]host[:port]/collection[?option=value&…]`` with the options `consistency`,
                `database`, `timeout` and `tls` (true or false). The port is 19530 where none is given.

        Raises:
            GalleryError: something is missing, unknown, or not of its kind.

        Example:
            >>> address = MilvusAddress.parse("milvus://me:secret@db.local/mall?timeout=5")
            >>> address.port, address.timeout, str(address)
            (19530, 5.0, 'milvus://db.local:19530/mall')
        """
        text = _repaired(text)
        parts = urlsplit(text)
        try:
            port = parts.port or 19530
        except ValueError as cause:
            raise GalleryError(f"'{_hidden(text)}' has a port that is no number: {cause}. Write {_EXAMPLE}.") from cause
        if not text.startswith(SCHEME) or not parts.hostname:
            raise GalleryError(f"'{_hidden(text)}' names no server. Write {_EXAMPLE}.")
        collection = unquote(parts.path.strip("/"))
        if not _NAME.fullmatch(collection):
            raise GalleryError(
                f"'{_hidden(text)}' names the collection '{collection}'; Milvus takes up to 200 letters, digits and "
                f"underscores, with no digit first. Write {_EXAMPLE}."
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        for name in options:
            if name not in _OPTIONS:
                raise GalleryError(
                    f"'{_hidden(text)}': no option is named '{name}'.{did_you_mean(name, _OPTIONS)} "
                    f"Options: {', '.join(_OPTIONS)}."
                )
        return MilvusAddress(
            host=parts.hostname,
            port=port,
            collection=collection,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=options.get("database", ""),
            tls=_choice(text, "tls", options.get("tls", "false"), ("false", "true")) == "true",
            consistency=_choice(text, "consistency", options.get("consistency", "Strong"), _CONSISTENCY),
            timeout=_seconds(text, options.get("timeout", "60")),
        )

    @property
    def server(self) -> str:
        """Return "host:port", as messages name it."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def uri(self) -> str:
        """Return what pymilvus connects to."""
        return f"{'https' if self.tls else 'http'}://{self.server}"

    def __str__(self) -> str:
        return f"{SCHEME}{self.server}/{self.collection}"


def _repaired(text: str) -> str:
    """The address with both slashes, of which `Path` leaves one."""
    return text if text.startswith(SCHEME) else re.sub(r"^milvus:/+", SCHEME, text)


def _choice(text: str, name: str, value: str, choices: tuple[str, ...]) -> str:
    for choice in choices:
        if value.lower() == choice.lower():
            return choice
    raise GalleryError(f"'{_hidden(text)}': {name} is '{value}'; give one of {', '.join(choices)}.")


def _seconds(text: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise GalleryError(f"'{_hidden(text)}': timeout is '{value}'; give a number of seconds above 0.")
    return seconds


def _hidden(text: str) -> str:
    """The address without its password."""
    return re.sub(r"//([^/@:]*):[^/@]*@", r"//\1:…@", text)
