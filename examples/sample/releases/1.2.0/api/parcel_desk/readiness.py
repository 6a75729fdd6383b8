"""Whether this release is fit to serve. This one is not, on purpose."""

from __future__ import annotations


def refusal() -> str | None:
    """Return the reason why this release must not get traffic."""
    return "the price list that this release needs is missing"
