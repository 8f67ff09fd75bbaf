"""A real Milvus server for the tests below, started here and stopped at the end.

OCCLUDED_REID_MILVUS may name a server that runs already, "host:port": the tests make and drop collections there whose
names begin with "occluded_reid_test_". OCCLUDED_REID_MILVUS_PYTHON may name the interpreter of an environment in which
the package `milvus` 2.3 is installed. Else such an environment is made once, in the user's cache folder. Where neither
is possible the tests are skipped, with the reason. A machine runs one such server at a time, because its etcd has a
fixed port: a second run, or a second worker of one, waits for the first.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

ADDRESS, PYTHON = "OCCLUDED_REID_MILVUS", "OCCLUDED_REID_MILVUS_PYTHON"
SERVE = """
import sys
from milvus import MilvusServer
server = MilvusServer()
server.set_base_dir(sys.argv[1])
server.start()
print("port", server.listen_port, flush=True)
sys.stdin.read()
server.stop()
"""


WAIT = 900.0  # seconds for another run to end
ETCD_PORT = 2379


def cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "occluded_reid"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def environment() -> Path:
    """Return the interpreter of an environment that has the server; make it if need be."""
    if PYTHON in os.environ:
        return Path(os.environ[PYTHON])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "occluded_reid" / "milvus-server-2.3"
    python = folder / "bin" / "python"
    cache.joinpath("occluded_reid").mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").is_file():
            subprocess.run(
                [sys.executable, "-m", "venv", "--clear", folder], check=True, capture_output=True, timeout=120
            )
            install = [python, "-m", "pip", "install", "--disable-pip-version-check", "setuptools<81", "milvus==2.3.*"]
            subprocess.run(install, check=True, capture_output=True, timeout=600)
            (folder / "complete").touch()
    return python


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return "host:port" of a running server."""
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    if ADDRESS in os.environ:
        yield os.environ[ADDRESS]
        return
    try:
        with FileLock(cache() / "milvus-server.lock", timeout=WAIT):
            yield from serve(tmp_path_factory.mktemp("milvus"))
    except Timeout:
        pytest.skip(f"no Milvus server: another test run has kept its own for {WAIT:g} s")


def serve(data: Path) -> Iterator[str]:
    """Run a server as long as its address is in use."""
    try:
        python = environment()
    except (OSError, subprocess.SubprocessError) as cause:
        output = getattr(cause, "stderr", None) or b""
        pytest.skip(f"no Milvus server: the package milvus 2.3 could not be installed: {cause} {output[-300:]!r}")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", ETCD_PORT)) == 0:
            pytest.skip(
                f"no Milvus server: port {ETCD_PORT}, which its etcd needs, is in use; {ADDRESS} may name a server"
            )
    # One thread a query: on a busy machine the server's threads would mostly wait for each other.
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(python), "-c", SERVE, str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("port ")), "")
        if not line:
            process.kill()
            pytest.skip(f"no Milvus server: it did not start, and ended with {process.wait()}")
        try:
            yield f"127.0.0.1:{int(line.split()[1])}"
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def new_address(milvus: str) -> Callable[[], str]:
    """Return addresses of galleries that do not exist yet."""
    return lambda: f"milvus://{milvus}/occluded_reid_test_{uuid.uuid4().hex[:12]}?timeout=120"
