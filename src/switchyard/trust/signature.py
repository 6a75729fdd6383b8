"""Asks cosign whether one of our keys signed an image. Needs the registry, and nothing else on any network."""

import json
import time

from switchyard.engine.effects import Completed, query
from switchyard.trust.policy import Refused, key_id

_TRIES = 3
_SECONDS = 60.0
_UNSIGNED, _OTHER_KEY = 10, 12
"""Exit codes of cosign (cmd/cosign/errors)."""


def verify(reference: str, keys: list[str], *, plain_http: bool) -> str:
    """Return the id of the key that signed the image; raises `Refused` when none of `keys` did.

    The claim that is verified names the digest, so what is checked here is what will run. The transparency log is not
    asked: with a key pair of one's own the key is the whole trust, and a host needs no way to the internet.
    """
    answer = Completed(1, "", "no key")
    for key in keys:
        answer = _ask(reference, key, plain_http=plain_http)
        if answer.code == 0 and _names(answer.out, reference.rpartition("@")[2]):
            return key_id(key)
        if answer.code not in (0, _OTHER_KEY):
            break
    if answer.code == _UNSIGNED:
        raise Refused(f"{reference} is not signed: sign it where it is built, with 'cosign sign --key'")
    if answer.code in (0, _OTHER_KEY):
        raise Refused(f"{reference} is signed, but by none of the keys in app_image_policy.public_keys")
    if answer.code == 127:
        raise Refused(f"{reference} cannot be verified, since cosign is not on this host: run provision.yml")
    raise Refused(f"The signature of {reference} cannot be read: {answer.reason[:200].rstrip('.')}")


def _ask(reference: str, key: str, *, plain_http: bool) -> Completed:
    words = ["--key", "env://COSIGN_PUBLIC_KEY", "--insecure-ignore-tlog=true", "--output", "json"]
    # The name notwithstanding, this is what lets cosign speak plain HTTP; Docker was told the same of this registry.
    words += ["--allow-insecure-registry"] if plain_http else []
    environment = {"COSIGN_PUBLIC_KEY": key, "HOME": "/root"}
    for attempt in range(1, _TRIES + 1):
        answer = query(["cosign", "verify", *words, reference], timeout=_SECONDS, environment=environment)
        if answer.code in (0, _UNSIGNED, _OTHER_KEY, 127) or attempt == _TRIES:
            break
        time.sleep(attempt)
    return answer


def _names(text: str, digest: str) -> bool:
    """Whether a claim that cosign vouches for names this digest; it says so itself, and is believed only with it."""
    try:
        return any(claim["critical"]["image"]["docker-manifest-digest"] == digest for claim in json.loads(text))
    except (ValueError, KeyError, TypeError):
        return False
