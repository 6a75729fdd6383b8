"""What an environment asks of images, as `app_image_policy` says it. Pure."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from datetime import date

from switchyard.errors import Exit, SwitchyardError

SEVERITIES = ("unknown", "low", "medium", "high", "critical")
"""Trivy's words, rising."""

IMAGE = "{image}"
"""Stands for the image by digest in the words of a command."""

TRIVY = [
    "trivy", "image", "--quiet", "--format", "json", "--scanners", "vuln", "--image-src", "remote",
    "--ignorefile", "/dev/null", "--exit-code", "0", IMAGE,
]  # fmt: skip
"""Everything is reported and nothing judged: not by an exit code, and not by an ignore file that lies around."""

_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*")
_MINIMUM_REASON = 8


class Refused(Exception):
    """An image that the policy does not let pass; the text is one sentence for the operator, without its full stop."""


@dataclass(frozen=True)
class Waiver:
    """A known finding that does not block, until the end of the day `expires` (YYYY-MM-DD, UTC)."""

    id: str
    reason: str
    expires: str
    service: str = ""
    """The only service whose image it holds for; empty means every one."""

    def holds(self, finding: str, service: str, today: date) -> bool:
        """Tell whether the finding is let pass today."""
        return self.names(finding, service) and date.fromisoformat(self.expires) >= today

    def names(self, finding: str, service: str) -> bool:
        """Tell whether this waiver is about the finding, expired or not."""
        return self.id == finding and self.service in ("", service)


@dataclass(frozen=True)
class ImagePolicy:
    """What must be true of an image before a release is made of it."""

    registries: list[str] = field(default_factory=list)
    immutable_tags: bool = True
    signature_required: bool = False
    public_keys: list[str] = field(default_factory=list)
    scan: str = "none"
    severity: str = "critical"
    scan_command: list[str] = field(default_factory=lambda: list(TRIVY))
    scan_timeout: float = 300.0
    exceptions: list[Waiver] = field(default_factory=list)
    sbom_command: list[str] = field(default_factory=list)

    @property
    def blocking(self) -> tuple[str, ...]:
        """The severities that block."""
        return SEVERITIES[SEVERITIES.index(self.severity) :]


def check(policy: ImagePolicy, override: str = "", where: str = "app_image_policy") -> None:
    """Refuse what cannot be meant; raises `SwitchyardError` naming the key."""

    def require(condition: bool, key: str, rule: str) -> None:
        if not condition:
            raise SwitchyardError(f"{where}.{key}: {rule}.", Exit.USAGE)

    require(policy.scan in ("none", "block", "compare"), "scan", "use none, block or compare")
    require(policy.severity in SEVERITIES[1:], "severity", f"use one of {', '.join(SEVERITIES[1:])}")
    require(1 <= policy.scan_timeout <= 7200, "scan_timeout", "use 1 to 7200 seconds")
    keys_are_named = bool(policy.public_keys) or not policy.signature_required
    require(keys_are_named, "public_keys", "name at least one key, since signature_required is true")
    for index, key in enumerate(policy.public_keys):
        require(bool(key_id(key)), f"public_keys[{index}]", "is no public key in PEM, as 'cosign public-key' prints it")
    for name, command in (("scan_command", policy.scan_command), ("sbom_command", policy.sbom_command)):
        named = sum(IMAGE in word for word in command) == 1 or (name == "sbom_command" and not command)
        require(named, name, f"write {IMAGE} once, where the image goes")
    for index, waiver in enumerate(policy.exceptions):
        here = f"exceptions[{index}]"
        require(bool(waiver.id.strip()), f"{here}.id", "name the finding, such as CVE-2026-1234")
        require(is_reason(waiver.reason), f"{here}.reason", "say why, in some words")
        require(_is_date(waiver.expires), f"{here}.expires", "write the last day as YYYY-MM-DD, in quotes")
    if override and not is_reason(override):
        raise SwitchyardError("image_override: say why, in some words on one line.", Exit.USAGE)


def is_reason(text: str) -> bool:
    """Tell whether somebody wrote more than a dot."""
    return len(text.strip()) >= _MINIMUM_REASON and text.isprintable()


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def key_id(pem: str) -> str:
    """Name a public key by its hash (SHA-256 of the DER bytes), or '' when it is none."""
    found = _PEM.fullmatch(pem.strip())
    if not found:
        return ""
    try:
        return "sha256:" + hashlib.sha256(base64.b64decode("".join(found[1].split()), validate=True)).hexdigest()
    except binascii.Error:
        return ""


def qualified(image: str) -> str:
    """An image's name with its registry: `nginx` is `docker.io/library/nginx`."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def is_allowed(image: str, registries: list[str]) -> bool:
    """Tell whether an image is in one of the registries (`ghcr.io`) or below one of their paths (`ghcr.io/acme`)."""
    name = qualified(image)
    return not registries or any(f"{name}/".startswith(f"{place.rstrip('/')}/") for place in registries)
