"""The command line: one thin file a command, which parses, calls the library and prints."""

from occluded_reid.cli.app import app, main

__all__ = ["app", "main"]
