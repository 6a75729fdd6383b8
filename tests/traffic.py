"""Users at a fixed rate, for releases on probation: each answer with its status, release and seconds."""

import http.client
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Seen:
    """One answer; status 0 means that there was none."""

    at: float
    status: int
    release: str
    seconds: float


class Traffic:
    """Keeps `workers` connections busy with about `rate` requests in a second in all, while the block runs.

    They begin `after` so many seconds.
    """

    def __init__(self, address: str, rate: float, path: str = "/", workers: int = 4, after: float = 0.0) -> None:
        self.address, self.path, self.pause, self.after = address, path, workers / rate, after
        self.seen: list[Seen] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(workers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=30)
        self._end.wait(self.after)
        while not self._end.is_set():
            began = time.monotonic()
            try:
                connection.request("GET", self.path)
                answer = connection.getresponse()
                answer.read()
                status, release = answer.status, answer.headers.get("X-Release", "")
            except (OSError, http.client.HTTPException):
                status, release = 0, ""
                connection.close()
            now = time.monotonic()
            self.seen.append(Seen(time.time(), status, release, now - began))
            self._end.wait(max(0.0, self.pause - (now - began)))

    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(not 200 <= seen.status < 500 for seen in self.seen)

    def last(self, release: str) -> float:
        """When the last request was sent that this release answered, in seconds since 1970; it may answer late."""
        return max((seen.at - seen.seconds for seen in self.seen if seen.release == release), default=0.0)
