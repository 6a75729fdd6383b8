"""Whether this release is fit to serve. A release that is not says so through /health."""

from __future__ import annotations


def refusal() -> str | None:
    """Return the reason why this release must not get traffic, or None when it may."""
    return None
