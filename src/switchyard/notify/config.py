"""Who is told what: `/etc/switchyard/notify.json`, written by the role `notify`. Its URLs are secrets."""

import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from switchyard.errors import SwitchyardError
from switchyard.strict import build, require

FILE = Path("/etc/switchyard/notify.json")
SEVERITIES = ("info", "warning", "critical")
FORMATS = ("slack", "json")


@dataclass(frozen=True)
class Target:
    """One receiver of news."""

    name: str
    url: str
    """Secret: whoever knows a webhook's URL may write to its channel. It is in no log and no error."""
    format: str = "slack"
    events: list[str] = field(default_factory=lambda: ["*"])
    """Kinds of news, with `*` for any letters: `deploy.*`."""
    severity: str = "info"
    """The least severity that is delivered."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with each request, such as an Authorization. Secret as well."""
    timeout: float = 10.0
    """Seconds for connecting, and for each wait for an answer."""

    def wants(self, news: dict[str, Any]) -> bool:
        """Tell whether this piece of news is for this target."""
        severity = str(news.get("severity", "info"))
        rank = SEVERITIES.index(severity) if severity in SEVERITIES else 0
        kind = str(news.get("kind", ""))
        return rank >= SEVERITIES.index(self.severity) and any(fnmatchcase(kind, event) for event in self.events)


@dataclass(frozen=True)
class Config:
    """Every target, and how much undelivered news is kept for them."""

    host: str = ""
    targets: list[Target] = field(default_factory=list)
    max_age_hours: float = 72.0
    max_news: int = 2000
    heartbeat_url: str = ""
    """Where the standing watch says that this host lives; secret, as targets are. Empty: nowhere."""
    heartbeat_seconds: float = 60.0


def load() -> Config:
    """Read the configuration; raises `SwitchyardError` naming the key that is wrong, never a URL."""
    try:
        data = json.loads(FILE.read_text())
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError) as error:
        raise SwitchyardError(f"{FILE} cannot be read ({type(error).__name__}): run provision.yml.") from error
    config = build(Config, data, "notify_")
    names = [target.name for target in config.targets]
    for target in config.targets:
        where = f"notify_targets.{target.name}"
        url = urlsplit(target.url)
        require(names.count(target.name) == 1, where, "two targets have this name")
        require(target.name.replace("-", "").isalnum() and target.name.isascii(), where, "name it a-z, 0-9 and -")
        require(url.scheme in ("http", "https") and bool(url.hostname), f"{where}.url", "this is no http(s) URL")
        require(target.format in FORMATS, f"{where}.format", f"use one of {', '.join(FORMATS)}")
        require(target.severity in SEVERITIES, f"{where}.severity", f"use one of {', '.join(SEVERITIES)}")
        require(0.1 <= target.timeout <= 300, f"{where}.timeout", "use 0.1 to 300 seconds")
    check_heartbeat(config.heartbeat_url, config.heartbeat_seconds)
    return config


def check_heartbeat(url: str, seconds: float) -> None:
    """Refuse what no heartbeat can be sent to, or how often; raises `SwitchyardError` naming the variable."""
    parts = urlsplit(url)
    plain = not url or (parts.scheme in ("http", "https") and bool(parts.hostname))
    require(plain, "notify_heartbeat_url", "this is no http(s) URL")
    require(1 <= seconds <= 86_400, "notify_heartbeat_seconds", "use 1 to 86400 seconds")
