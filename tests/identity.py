"""A `backup_replica_identity` for tests, as the command makes one that the documentation gives."""

import functools
import subprocess

_WORDS = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -keyout - -out - -subj"


@functools.cache
def identity(address: str) -> str:
    """Key and certificate in PEM, for a replica at this address."""
    done = subprocess.run([*_WORDS.split(), f"/CN={address}"], capture_output=True, text=True, check=True)
    return done.stdout
