"""Tells where a value was written. The one place that knows how Ansible keeps this."""

from __future__ import annotations

from pathlib import Path

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # another ansible-core may keep it elsewhere: then messages name the variable alone
    Origin = None


def where(value: object, root: Path) -> str:
    """Return `FILE:LINE: ` of a value from a file (relative to `root` when it lies below), `-e: `, or nothing."""
    tag = Origin.get_tag(value) if Origin is not None else None
    if tag is None:
        return ""
    if not tag.path:
        return "-e: " if "'-e'" in (tag.description or "") else ""
    path = Path(str(tag.path))
    shown = path.relative_to(root) if path.is_relative_to(root) else path
    return f"{shown}:{tag.line_num}: " if tag.line_num else f"{shown}: "
