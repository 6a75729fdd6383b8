"""Names: which are allowed, and what is derived from them.

Every name that reaches a path, a container, an Nginx variable or a command line passes through here, so that nothing
else has to quote or escape.
"""

import difflib
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from switchyard.errors import Exit, SwitchyardError

Colour = Literal["blue", "green"]
COLOURS: tuple[Colour, Colour] = ("blue", "green")

# An environment has no dash, so `APP-ENV` reads back in one way only, and two pairs never share a project name.
_APP = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_ENVIRONMENT = re.compile(r"[a-z][a-z0-9]*")
_SERVICE = _APP
# The characters of a container tag (distribution specification), which is what a version becomes.
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_OPERATION = re.compile(r"\d{8}T\d{6}-(?:[0-9a-f]{6}|[0-9a-f]{32})")
_RELEASE_ID = re.compile(r"(\d{4,})-(" + _VERSION.pattern + ")")
_SEMVER = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")


def other(colour: Colour) -> Colour:
    """Return the colour that is not `colour`."""
    return "green" if colour == "blue" else "blue"


def _check(kind: str, pattern: re.Pattern[str], text: str, rule: str) -> str:
    if not pattern.fullmatch(text) or len(text) > 128:
        raise SwitchyardError(f"'{text[:64]}' is not a valid {kind}: {rule}.", Exit.USAGE)
    return text


def check_version(text: str) -> str:
    """Return `text` when it can be a version (and so an image tag); raise `SwitchyardError` otherwise."""
    return _check("version", _VERSION, text, "use letters, digits, dot, dash and underscore, such as 1.4.0")


def check_service(text: str) -> str:
    """Return `text` when it can name a service; raise `SwitchyardError` otherwise."""
    return _check("service name", _SERVICE, text, "use lower-case letters, digits and single dashes")


@dataclass(frozen=True)
class AppName:
    """One application in one environment: the unit that is released, locked, pruned and rolled back."""

    app: str
    environment: str

    def __post_init__(self) -> None:
        _check("application name", _APP, self.app, "use lower-case letters, digits and single dashes")
        _check("environment name", _ENVIRONMENT, self.environment, "use lower-case letters and digits")

    def __str__(self) -> str:
        return f"{self.app}-{self.environment}"

    @property
    def variable(self) -> str:
        """The name as an Nginx variable may carry it."""
        return str(self).replace("-", "_")

    def project(self, colour: Colour) -> str:
        """Compose project of one colour."""
        return f"{self}-{colour}"

    @classmethod
    def parse(cls, text: str) -> "AppName":
        """Read `APP-ENV` back."""
        app, _, environment = text.rpartition("-")
        return cls(app, environment)


def release_id(number: int, version: str) -> str:
    """Name a release: the number that never repeats, then the version, as in `0042-1.4.0`."""
    return f"{number:04d}-{version}"


def parse_release_id(text: str) -> tuple[int, str] | None:
    """Return number and version of a release id, or None when `text` is none."""
    match = _RELEASE_ID.fullmatch(text)
    return (int(match[1]), match[2]) if match else None


def names_release(wanted: str, release: str) -> bool:
    """Tell whether `wanted`, as a person gives it, is this release's id or its version."""
    return wanted in (release, release.partition("-")[2])


def is_newer(version: str, than: str) -> bool:
    """Tell whether `version` comes after `than` by semantic versioning 2.0.0, section 11.

    Versions that are no semantic versions (a commit tag) have no order, so neither is newer.
    """
    left, right = _SEMVER.fullmatch(version), _SEMVER.fullmatch(than)
    if not left or not right:
        return False

    def key(match: re.Match[str]) -> tuple[object, ...]:
        core = tuple(int(part) for part in match.group(1, 2, 3))
        # A pre-release sorts before its release; numeric identifiers sort before alphanumeric ones.
        parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in (match[4] or "").split(".") if p)
        return (core, match[4] is None, parts)

    return key(left) > key(right)


def new_operation() -> str:
    """Make an operation id: the time (UTC) and six random digits."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def derived_operation(time: str, *of: str) -> str:
    """Make the operation id that belongs to `of`: as long as it takes for nobody to find others that come to the same.

    `time` is written as in `new_operation`; ids sort by it, and what sorts first is pruned first.
    """
    digest = hashlib.sha256("\n".join(of).encode()).hexdigest()
    return f"{time}-{digest[:32]}"


def check_operation(text: str) -> str:
    """Return a well-formed operation id; raises `SwitchyardError` otherwise."""
    return _check("operation id", _OPERATION, text, "it is printed when the operation starts")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the known name closest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f", did you mean '{match[0]}'?" if match else ""
