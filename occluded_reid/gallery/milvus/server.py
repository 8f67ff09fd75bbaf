"""The connection to a Milvus server: transient faults are waited out, others become errors that name the server."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from occluded_reid.errors import GalleryError, MissingExtraError
from occluded_reid.gallery.milvus.address import MilvusAddress

__all__ = ["MilvusServer"]

_T = TypeVar("_T")
_PAUSES = (0.1, 2.0)  # seconds before connecting again: the first pause, doubled up to the last
_CALLS = 8  # calls on their way at once
# What pymilvus and the server say where nobody is there, or somebody who may not come in.
_ABSENT = (
    "fail connecting",
    "unavailable",
    "retry timeout",
    "retry run out",
    "deadline",
    "not ready",
    "connection refused",
)
_REFUSED = ("auth check", "unauthenticated", "permission", "privilege", "invalid token", "invalid credential")
_FILTER = ("parse expression", "create query plan", "invalid expression", "expr", "predicate")


class MilvusServer:
    """One client of a server.

    pymilvus repeats calls that the network or an overloaded server has failed, with pauses that grow, until the
    address's `timeout`; all our writes can be repeated without harm, because a row is written under its own number.

    Args:
        address: of the gallery.

    Raises:
        MissingExtraError: pymilvus is not installed.
        GalleryError: the server does not answer, or refuses the user.
    """

    def __init__(self, address: MilvusAddress) -> None:
        self.address = address
        self._client = self._connect()
        self._pool = ThreadPoolExecutor(_CALLS, thread_name_prefix="milvus")

    def call(self, verb: str, method: str, *args: Any, where: str | None = None, **options: Any) -> Any:
        """Call a method of pymilvus's client.

        Args:
            verb: what is being done to the gallery, for messages: "read", "written".
            method: its name.
            args: its arguments.
            where: a filter of the user's that is part of the call, which may be what is wrong.
            options: its keywords.

        Raises:
            GalleryError: the server did not answer in time, or refuses the call; it is named.
        """
        try:
            return getattr(self._client, method)(*args, **{"timeout": self.address.timeout, **options})
        except self._faults as cause:
            raise self._error(verb, cause, where) from cause

    def each(self, work: Callable[..., _T], items: Sequence[tuple[Any, ...]]) -> list[_T]:
        """Return `work(*item)` for each item, several at once, in the order of the items."""
        return list(self._pool.map(lambda item: work(*item), items))

    def close(self) -> None:
        """Hang up."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def _connect(self) -> Any:
        try:
            import grpc
            from pymilvus import MilvusClient
            from pymilvus.exceptions import MilvusException
        except ImportError as cause:
            raise MissingExtraError(
                f"galleries on a server ({self.address}) need pymilvus: pip install 'occluded_reid[milvus]'."
            ) from cause
        self._faults: tuple[type[Exception], ...] = (MilvusException, grpc.RpcError)
        # Every fault is raised again as an error of ours; pymilvus would print its own trace before that.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        who = self.address
        token = who.password if not who.user else ""
        user = {"user": who.user, "password": who.password} if who.user else {}
        until, pause = time.monotonic() + who.timeout, _PAUSES[0]
        while True:
            try:
                return MilvusClient(
                    uri=who.uri, token=token, db_name=who.database, timeout=min(who.timeout, 10.0), **user
                )
            except self._faults as cause:
                if not _is(cause, _ABSENT) or _is(cause, _REFUSED) or time.monotonic() + pause > until:
                    raise self._error("opened", cause, None) from cause
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])

    def _error(self, verb: str, cause: Exception, where: str | None) -> GalleryError:
        message = _message(cause)
        place = f"the Milvus server {self.address.server}"
        if _is(cause, _REFUSED):
            message = _message(cause.__cause__ if isinstance(cause.__cause__, Exception) else cause)
            who = f"the user '{self.address.user}'" if self.address.user else "a client without a user"
            return GalleryError(
                f"{place} refuses {who}: {message}. Write milvus://user:password@{self.address.server}/"
                f"{self.address.collection}, with a user who may do this."
            )
        if _is(cause, _ABSENT):
            return GalleryError(
                f"{place} does not answer ({message}); it was tried for up to {self.address.timeout:g} s. "
                "Start it, correct host and port, or raise ?timeout= in the address."
            )
        if where is not None and _is(cause, _FILTER):
            return GalleryError(
                f"where {where!r} is not understood: {message}. On a server, text is an expression of Milvus: "
                "'camera == 3 and identity == \"0002\"'; a mapping or field(…) works everywhere."
            )
        return GalleryError(
            f"the gallery '{self.address}' could not be {verb}: {place} says: {message}. "
            "What was acknowledged before is unharmed; repeat the call when the server allows it."
        )


def _message(cause: Exception) -> str:
    text = getattr(cause, "message", None) or getattr(cause, "details", lambda: None)() or str(cause)
    lines = str(text).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(cause).__name__


def _is(cause: Exception, signs: Sequence[str]) -> bool:
    # While connecting, pymilvus hides what gRPC has said behind words of its own. Only the next cause is looked at: an
    # error of gRPC may be its own cause.
    text = f"{cause} {cause.__cause__}".lower()
    return any(sign in text for sign in signs)
