"""The version, in one place; read by packaging and by reports."""

__version__ = "0.1.0"
