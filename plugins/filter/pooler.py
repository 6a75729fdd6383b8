"""Filters that the role `postgres` describes its pooler with; the recipe is in `switchyard.data.image`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.switchyard.stack.plugins.plugin_utils.source import make_importable

make_importable()

from switchyard.data import image


def pooler_image(base: Any) -> str:
    """Name the image that is built from `base`."""
    return image.pooler_name(str(base))


def pooler_dockerfile(base: Any) -> str:
    """Give the recipe of that image."""
    return image.pooler_dockerfile(str(base))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"pooler_image": pooler_image, "pooler_dockerfile": pooler_dockerfile}
