"""One question to a web server that a test made."""

from http.client import HTTPResponse
from urllib.request import Request, urlopen


def opened(
    url: str, *, timeout: float = 60.0, data: bytes | None = None, headers: dict[str, str] | None = None
) -> HTTPResponse:
    """The answer to a GET, or to a POST of `data`; `timeout` is in seconds. Raises what `urlopen` raises."""
    assert url.startswith(("http://", "https://")), url
    request = Request(url, data, headers or {})  # noqa: S310 - the assertion above lets no other scheme through
    answer: HTTPResponse = urlopen(request, timeout=timeout)  # noqa: S310 - the same request
    return answer
