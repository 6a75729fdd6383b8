"""The images that are built on a database's host: the configured Postgres with one more program in each. Pure.

A name carries a hash of its recipe, so another base or recipe is another image, and the same one is found again.
"""

import hashlib

_RECIPE = r"""FROM BASE
USER root
RUN apt-get -q update \
 && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends PACKAGE \
 && rm -rf /var/lib/apt/lists/* \
 && dpkg --compare-versions "$(dpkg-query --show --showformat='${Version}' PACKAGE)" ge OLDEST
LABEL switchyard.role=ROLE
"""


def _recipe(base: str, package: str, oldest: str, role: str) -> str:
    """Packages come from the source that the base image itself is set up with."""
    text = _RECIPE.replace("BASE", base).replace("PACKAGE", package)
    return text.replace("OLDEST", oldest).replace("ROLE", role)


def _hash(recipe: str) -> str:
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def dockerfile(base: str) -> str:
    """The recipe of Postgres with pgBackRest, which the database runs from."""
    return _recipe(base, "pgbackrest", "2.55", "postgres-image")


def name(base: str, version: int) -> str:
    """Its name on the host."""
    return f"switchyard/postgres:{version}-{_hash(dockerfile(base))}"


def pooler_dockerfile(base: str) -> str:
    """The recipe of PgBouncer; 1.21 is the first that keeps prepared statements apart in transaction pooling.

    Its entry point is PgBouncer itself: that of Postgres would make a database cluster.
    """
    recipe = _recipe(base, "pgbouncer", "1.21", "pooler-image")
    return recipe + 'ENTRYPOINT ["/usr/sbin/pgbouncer"]\nCMD []\n'


def pooler_name(base: str) -> str:
    """Its name on the host."""
    return f"switchyard/pgbouncer:{_hash(pooler_dockerfile(base))}"
