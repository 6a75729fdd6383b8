"""One piece of news over HTTP: delivered, refused for good, or to be tried again."""

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from switchyard.notify.config import Target
from switchyard.notify.payload import generic, slack

_REFUSALS = (400, 413, 422)
"""The receiver read this message and will never take it; what comes after it may still be taken."""
_LONGEST_PAUSE = 3600.0


class Undelivered(Exception):
    """This attempt failed. `reason` never holds the URL; `pause` is what the receiver asked us to wait, in seconds."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pause = pause


class Refused(Undelivered):
    """The receiver will not take this message, however often it is sent."""


def send(target: Target, news: dict[str, Any], host: str, identity: str) -> None:
    """Post the news; raises `Undelivered` or `Refused`. Redirects are not followed: they could lead anywhere."""
    message = slack(news, host) if target.format == "slack" else generic(news, host, identity)
    body = json.dumps(message).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "switchyard", "Idempotency-Key": identity}
    url = urlsplit(target.url)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        connection = _connect(url.scheme, url.hostname or "", url.port, target.timeout)
        try:
            connection.request("POST", path, body, headers | target.headers)
            answer = connection.getresponse()
            status, pause = answer.status, answer.getheader("Retry-After", "")
        finally:
            connection.close()
    except TimeoutError as error:
        raise Undelivered(f"no answer within {target.timeout:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise Undelivered(f"its certificate is not accepted: {error.verify_message}") from error
    except OSError as error:
        raise Undelivered(error.strerror or type(error).__name__) from error
    except (http.client.HTTPException, ValueError) as error:
        # Their texts may quote the URL.
        raise Undelivered(f"no valid answer ({type(error).__name__})") from error
    if status in _REFUSALS:
        raise Refused(f"it answered {status}")
    if not 200 <= status < 300:
        raise Undelivered(f"it answered {status}", min(float(pause), _LONGEST_PAUSE) if pause.isdigit() else 0.0)


def _connect(scheme: str, host: str, port: int | None, timeout: float) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=timeout)
