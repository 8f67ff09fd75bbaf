"""What becomes of faults of a connection; the client is a stand-in, the faults are pymilvus's own."""

from __future__ import annotations

from typing import Any

import pytest

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.milvus.address import MilvusAddress
from occluded_reid.gallery.milvus.server import MilvusServer

pymilvus = pytest.importorskip("pymilvus", reason="pymilvus is not installed")


class Client:
    """Fails to connect some times; afterwards each call raises what it is given."""

    failures: list[str]
    fault: str | None

    def __init__(self, **options: Any) -> None:
        self.options = options
        if type(self).failures:
            cause = RuntimeError(type(self).failures.pop(0))
            cause.__cause__ = cause  # as pymilvus does it
            raise pymilvus.MilvusException(code=2, message="Fail connecting to server on db:7") from cause

    def query(self, *args: Any, **options: Any) -> Any:
        if type(self).fault is not None:
            raise pymilvus.MilvusException(code=65535, message=type(self).fault)
        return args, options

    def close(self) -> None:
        """Nothing is open."""


def connect(
    monkeypatch: pytest.MonkeyPatch, failures: list[str], fault: str | None = None, text: str = ""
) -> MilvusServer:
    Client.failures, Client.fault = failures, fault
    monkeypatch.setattr(pymilvus, "MilvusClient", Client)
    return MilvusServer(MilvusAddress.parse(text or "milvus://me:secret@db:7/mall?timeout=5&database=cams"))


def test_a_server_that_comes_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("occluded_reid.gallery.milvus.server.time.sleep", pauses.append)
    server = connect(monkeypatch, ["connection refused"] * 6)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    options = {"uri": "http://db:7", "user": "me", "password": "secret", "token": "", "db_name": "cams", "timeout": 5.0}
    assert server._client.options == options
    assert server.call("read", "query", "mall") == (("mall",), {"timeout": 5.0})
    assert server.each(lambda a, b: a - b, [(5, 1), (7, 4)]) == [4, 3]
    server.close()


@pytest.mark.parametrize(
    ("fault", "where", "match"),
    [
        (
            "Retry timeout: 5s, <_InactiveRpcError: UNAVAILABLE>",
            None,
            r"server db:7 does not answer .* up to 5 s. Start it",
        ),
        ("Deadline Exceeded", None, "does not answer"),
        (
            "auth check failure, please check username and password",
            None,
            "server db:7 refuses the user 'me': auth check",
        ),
        ("permission deny: PrivilegeQuery", None, "with a user who may do this"),
        ("cannot parse expression: x = 3", "x = 3", "where 'x = 3' is not understood: cannot parse"),
        (
            "quota exceeded[reason=disk full]\nat server.go:3",
            None,
            r"'milvus://db:7/mall' could not be read: .*disk full\]",
        ),
    ],
)
def test_faults_name_the_server_and_never_the_password(
    monkeypatch: pytest.MonkeyPatch, fault: str, where: str | None, match: str
) -> None:
    server = connect(monkeypatch, [], fault)
    with pytest.raises(GalleryError, match=match) as error:
        server.call("read", "query", "mall", where=where)
    assert "secret" not in str(error.value)
    assert "server.go" not in str(error.value)
    server.close()


def test_a_refused_user_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occluded_reid.gallery.milvus.server.time.sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(GalleryError, match="refuses a client without a user: UNAUTHENTICATED: auth check failure"):
        connect(monkeypatch, ["UNAUTHENTICATED: auth check failure"], text="milvus://db:7/mall")
