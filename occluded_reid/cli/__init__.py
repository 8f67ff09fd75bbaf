"""The command line: one thin file a command, which parses, calls the library and prints."""

import sys

try:
    from occluded_reid.cli.app import app, main
except KeyboardInterrupt:  # the installed script imports this first of all, where nobody else catches Ctrl-C
    sys.stderr.write("Stopped.\n")
    sys.exit(130)

__all__ = ["app", "main"]
