"""The one error that the stack's commands show to people."""

from __future__ import annotations


class StackError(Exception):
    """Say in one sentence what cannot be done, why, and the way out."""
