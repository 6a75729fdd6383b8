"""What a receiver is sent. Pure, so that the jobs in `scripts/ci` write their messages with it, too."""

from typing import Any

_COLOURS = {"info": "good", "warning": "warning", "critical": "danger"}
_FIRST = ("version", "release", "previous", "who", "commit", "seconds", "reason")
_LABELS = {"who": "by", "seconds": "took"}
_LONGEST = 300
_MOST_FIELDS = 12


def escape(text: str) -> str:
    """Take from a text what Slack would read as markup (Slack's "Formatting text for app surfaces")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def slack(news: dict[str, Any], host: str) -> dict[str, Any]:
    """A message for Slack's incoming webhooks and what is compatible with them (Mattermost, Rocket.Chat)."""
    details = {str(key): value for key, value in dict(news.get("details") or {}).items() if value not in ("", None)}
    link = str(details.pop("run_url", ""))
    keys = [key for key in _FIRST if key in details] + sorted(set(details) - set(_FIRST))
    fields = [
        {"title": _LABELS.get(key, key.replace("_", " ")), "value": escape(_show(key, details[key])), "short": True}
        for key in keys[:_MOST_FIELDS]
        if isinstance(details[key], str | int | float | bool)
    ]
    title = escape(_short(str(news.get("title", ""))))
    if link.startswith("https://") and not set(link) & set("<>| "):
        fields.append({"title": "run", "value": f"<{link}>", "short": False})
    return {
        "text": title,
        "attachments": [
            {
                "color": _COLOURS.get(str(news.get("severity")), "warning"),
                "fallback": title,
                "fields": fields,
                "footer": escape(" · ".join(filter(None, (str(news.get("app", "")), host, str(news.get("time", "")))))),
            }
        ],
    }


def generic(news: dict[str, Any], host: str, identity: str) -> dict[str, Any]:
    """The news as they were left, with the host's name and an id that stays the same when they are sent again."""
    return {"id": identity, "host": host, **news}


def _show(key: str, value: object) -> str:
    if key == "seconds" and isinstance(value, int | float):
        return f"{value:.1f} s"
    return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
