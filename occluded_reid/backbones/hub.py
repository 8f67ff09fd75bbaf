"""Hubs of weights, asked once whether they are there, instead of tried again and again for over a minute."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import huggingface_hub

__all__ = ["no_weights", "quick_hub", "unreachable"]

_SECONDS = 5.0


def unreachable(address: str, seconds: float = _SECONDS) -> str | None:
    """Return why an address cannot be reached, or None if somebody answers there, whatever the answer.

    Args:
        address: to ask for, by the proxies of the environment.
        seconds: after which nobody is there; looking up a name counts.
    """
    found: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=seconds).close()
        except urllib.error.HTTPError:
            found.append(None)
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or error
            # Whose certificates are trusted is the business of the library that fetches.
            found.append(None if isinstance(why, ssl.SSLError) else str(why))
        else:
            found.append(None)

    # A name server that is silent keeps its caller waiting whatever timeout it was given.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return found[0] if found else f"no answer within {seconds:.0f} seconds"


@contextmanager
def quick_hub() -> Iterator[str | None]:
    """Let huggingface_hub look into its cache alone where its hub cannot be reached; gives the reason, or None."""
    settings = huggingface_hub.constants
    if settings.HF_HUB_OFFLINE:
        yield "HF_HUB_OFFLINE is set"
        return
    why = unreachable(settings.ENDPOINT)
    settings.HF_HUB_OFFLINE = why is not None
    try:
        yield why
    finally:
        settings.HF_HUB_OFFLINE = False


def no_weights(name: str, hub: str, why: object) -> str:
    """Return the message for weights that cannot be had."""
    return (
        f"the weights of '{name}' could not be fetched from {hub} ({why}), and they are not in its cache. Give a local "
        "file (--weights FILE; model.backbone.weights), or start from random values (--weights none; weights: null)."
    )
