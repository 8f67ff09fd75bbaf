"""Fails at import, as a package does whose own dependency has gone."""

raise OSError("libwaist.so.3: cannot open shared object file")
