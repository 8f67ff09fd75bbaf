"""Processes made by fork after threads were at work: they are refused, because they would wait for ever.

A fork copies the memory of a process, but of its threads only the one that forks. Whatever pool of threads had worked
before (torch, FAISS, LanceDB) is then believed to be there, and the first call to it never returns.
"""

from __future__ import annotations

import os
import sys

from occluded_reid.errors import DeviceError, OccludedReIDError

__all__ = ["require_own_process", "require_threads"]

_HELP = (
    "Start processes with multiprocessing.get_context('spawn'), and open models and galleries there; or fork before "
    "anything is computed."
)
_first: list[int] = []  # the process that computed first; a forked child inherits the entry


def require_threads(what: str, device: str = "cpu") -> None:
    """Note that this process computes with threads; refuse one that was forked from a process which did.

    A process whose torch has one thread only, such as a worker of a DataLoader, has nothing to wait for, on a CPU.

    Args:
        what: is being done, for the message: "embed images".
        device: where it is done; a GPU's context is never inherited.

    Raises:
        DeviceError: this process was forked after its parent had computed.

    Example:
        >>> require_threads("embed images")
    """
    here = os.getpid()
    if not _first:
        _first.append(here)
    if _first[0] == here:
        return
    torch = sys.modules.get("torch")
    if device.startswith("cuda") or torch is None or torch.get_num_threads() > 1:
        raise DeviceError(
            f"process {here} cannot {what}: it was forked from process {_first[0]} after that had computed, and the "
            f"threads that had worked there are missing here. {_HELP}"
        )


def require_own_process(owner: int, what: str, error: type[OccludedReIDError]) -> None:
    """Refuse an object in a process that was forked from the one which made it.

    Args:
        owner: ``os.getpid()`` when the object was made.
        what: it is, for the message: "the gallery 'mall/'".
        error: the kind of error to raise.

    Raises:
        error: this is another process.
    """
    here = os.getpid()
    if here != owner:
        raise error(f"{what} was opened by process {owner} and is used by process {here}, a fork of it. {_HELP}")
