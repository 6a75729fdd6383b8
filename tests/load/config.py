"""What a run is to do, and the refusal of what it must not do."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

KINDS: dict[str, str] = {
    "get": "GET on a kept-alive connection",
    "post": "POST on a kept-alive connection",
    "new": "GET, each on a new connection",
    "slow": "a long request",
    "upload": "a body sent in slow pieces",
    "ws": "WebSocket echo",
    "sse": "server-sent events",
    "page": "the web page and the assets that it names",
    "tls": "GET and POST over TLS with HTTP/1.1, kept alive",
    "h2": "GET and POST over TLS with HTTP/2, several streams to a connection",
}
TLS_KINDS = frozenset({"tls", "h2"})
TRIVIAL_KINDS = frozenset({"get", "post", "new", "tls", "h2"})

_SIMPLE = {"get": 32, "post": 8, "new": 8}
_FULL = {"get": 16, "post": 6, "new": 6, "slow": 3, "upload": 2, "ws": 4, "sse": 4, "page": 2, "tls": 6, "h2": 2}


class BadUsage(ValueError):
    """The caller asked for something that is not offered; the text is one sentence saying what."""


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """Everything that decides a run; times are in seconds."""

    url: str
    workers: Mapping[str, int] = field(default_factory=lambda: dict(_SIMPLE))
    app: str = "trivial"  # "trivial": only GET and POST /; "parcels": the sample application's routes
    tls_url: str | None = None  # where the kinds tls and h2 go; an https `url` serves for them too
    connect: str | None = None  # connect to this address instead of the one that the URL's host has
    server_name: str | None = None  # the name to ask for and to verify in TLS, else the URL's host
    ca: str | None = None  # the only authority to trust, else the system's
    streams: int = 4  # at the same time on one HTTP/2 connection
    think: tuple[float, float] = (0.0, 0.03)
    timeout: float = 30.0
    slow_seconds: float = 3.0
    sse_seconds: float = 5.0
    ws_interval: float = 0.1
    upload_bytes: int = 256 * 1024
    upload_time: float = 1.0
    api_service: str = "api"
    web_service: str = "web"
    drain: float = 60.0  # how long an established WebSocket or SSE must outlive a switch
    settle: float = 0.5  # how long after the first new answer an old one is still no surprise
    audit: bool | None = None  # ask which writes arrived; None: where the application can be asked
    seed: int = field(default_factory=lambda: random.SystemRandom().randrange(2**32))
    max_duration: float = 600.0
    max_requests: int = 5_000_000
    finish_limit: float = 60.0  # how long a stopped run waits for what is in flight; longer than `timeout`

    def __post_init__(self) -> None:
        """Refuse what cannot be run, so that a typing error is not a run without load."""
        if self.app not in {"trivial", "parcels"}:
            raise BadUsage(f'The application is "trivial" or "parcels", not "{self.app}".')
        for kind, count in self.workers.items():
            if kind not in KINDS:
                raise BadUsage(f'There is no kind "{kind}"; the kinds are {", ".join(KINDS)}.')
            if count < 0:
                raise BadUsage(f"The number of {kind} workers must not be negative.")
            if count and self.app == "trivial" and kind not in TRIVIAL_KINDS:
                raise BadUsage(f'The kind "{kind}" needs the sample application (app "parcels").')
            if count and kind in TLS_KINDS and self.tls_target is None:
                raise BadUsage(f'The kind "{kind}" needs an https URL (--tls-url).')
        if not any(self.workers.values()):
            raise BadUsage("At least one worker is needed.")
        positive = ("streams", "timeout", "max_duration", "max_requests", "finish_limit", "upload_bytes")
        for name in positive:
            if getattr(self, name) <= 0:
                raise BadUsage(f"The value of {name} must be more than zero.")
        if not 0 <= self.think[0] <= self.think[1]:
            raise BadUsage("The think time is a range from a smaller to a larger number of seconds.")
        if self.ca is not None and not Path(self.ca).is_file():
            raise BadUsage(f"There is no CA file {self.ca}.")

    @property
    def tls_target(self) -> str | None:
        """The URL for the kinds that need TLS, if there is one."""
        if self.tls_url is not None:
            return self.tls_url
        return self.url if self.url.startswith("https:") else None

    @property
    def audited(self) -> bool:
        """Whether the writes are looked up at the end."""
        return self.app == "parcels" if self.audit is None else self.audit

    def as_dict(self) -> dict[str, Any]:
        """Return what `LoadConfig(**…)` takes, fit for JSON."""
        fields = asdict(self)
        fields["workers"] = dict(self.workers)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> LoadConfig:
        """Undo `as_dict` after a trip through JSON, which knows no tuples."""
        low, high = fields["think"]
        return cls(**{**fields, "think": (low, high)})


def mix(text: str, *, tls: bool = False) -> dict[str, int]:
    """Return the workers for `simple`, `full`, or a list such as `get=8,post=2,ws`.

    `full` leaves out the kinds that need TLS when there is no TLS to talk to.
    """
    if text == "simple":
        return dict(_SIMPLE)
    if text == "full":
        return {kind: count for kind, count in _FULL.items() if tls or kind not in TLS_KINDS}
    workers: dict[str, int] = {}
    for item in text.split(","):
        kind, equals, count = item.strip().partition("=")
        if kind not in KINDS:
            raise BadUsage(f'A mix is "simple", "full" or a list of {", ".join(KINDS)}, not "{kind}".')
        if equals and not count.isdecimal():
            raise BadUsage(f'The number of {kind} workers is a whole number, not "{count}".')
        workers[kind] = int(count) if equals else _FULL[kind]
    return workers
