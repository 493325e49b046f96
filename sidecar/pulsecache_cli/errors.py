"""The one error that ends a command: what happened, to what, and what to do, in one line for people."""

from __future__ import annotations


class CommandFailed(Exception):
    """Printed to stderr; the exit code is 1."""
