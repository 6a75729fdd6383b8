"""The image that the database runs from: the configured Postgres with pgBackRest. Pure.

The name carries a hash of the recipe, so another base or recipe is another image, and the same one is found again.
"""

import hashlib

_RECIPE = r"""FROM BASE
USER root
RUN apt-get -q update \
 && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends pgbackrest \
 && rm -rf /var/lib/apt/lists/* \
 && dpkg --compare-versions "$(dpkg-query --show --showformat='${Version}' pgbackrest)" ge 2.55
LABEL switchyard.role=postgres-image
"""


def dockerfile(base: str) -> str:
    """The recipe; packages come from the source that the base image itself is set up with."""
    return _RECIPE.replace("BASE", base)


def name(base: str, version: int) -> str:
    """The image's name on the host."""
    return f"switchyard/postgres:{version}-{hashlib.sha256(dockerfile(base).encode()).hexdigest()[:12]}"
