"""Opens pages in a Chromium without a window, and tells what goes wrong in them.

It is spoken to by the DevTools protocol through a pipe (`--remote-debugging-pipe`), so nothing has to be installed but
the browser, and no port is opened. What is used of the protocol is part of its stable version, 1.3.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common import JobError

_QUIET_SECONDS = 1.0
"""A page is done when it has loaded and asked for nothing for so long."""
_ANSWER_SECONDS = 30.0
"""How long the browser itself may take to start, or to answer."""
_READ_FROM, _WRITE_TO = 3, 4
"""The file descriptors on which Chromium expects the pipe."""

Message = dict[str, Any]


class Browser:
    """A Chromium with a profile of its own, gone at the end of the block."""

    def __init__(self, command: str) -> None:
        path = shutil.which(command)
        if path is None:
            raise JobError(
                f"SMOKE_PAGES needs a Chromium, and there is no '{command[:80]}': install it (Debian: apt-get install "
                "chromium), or name it in SMOKE_BROWSER.",
                2,
            )
        self._path = path
        self._number = 0
        self._buffer = b""
        self._events: list[Message] = []
        self._end = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            folder = undo.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            theirs_in, self._out = self._pipe(undo)
            self._in, theirs_out = self._pipe(undo)
            argv = [self._path, "--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run"]
            argv += ["--disable-extensions", "--disable-background-networking", f"--user-data-dir={folder}"]
            # Chromium refuses to run as root with its sandbox, and containers often give it no other user.
            argv += ["--no-sandbox"] if os.geteuid() == 0 else []

            def attach() -> None:
                os.dup2(theirs_in, _READ_FROM)
                os.dup2(theirs_out, _WRITE_TO)

            log = undo.enter_context((Path(folder) / "log").open("w+"))
            process = subprocess.Popen(
                [*argv, "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                close_fds=False,
                preexec_fn=attach,  # noqa: PLW1509 - one thread, and nothing else gives a child these two numbers
            )
            undo.callback(self._stop, process)
            # Ours alone from here on, so that its end is seen.
            os.close(theirs_in)
            os.close(theirs_out)
            self._end = undo.pop_all()
        return self

    @staticmethod
    def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
        """The two ends, above the numbers that Chromium expects."""
        ends = []
        for low in os.pipe():
            ends.append(fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 16))
            os.close(low)
        reading, writing = ends

        def close() -> None:
            for end in ends:
                with contextlib.suppress(OSError):
                    os.close(end)

        undo.callback(close)
        return reading, writing

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.close()

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def look(self, url: str, text: str = "", limit: float = 20.0) -> list[str]:
        """Open a page, wait until it is done, and return what is wrong: with it, in its console, with what it loads.

        `text` has to be seen in it. Raises `JobError` when the browser fails.
        """
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = str(self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", session=session)
        self._events.clear()
        opened = self._call("Page.navigate", {"url": url}, session)
        if reason := opened.get("errorText"):
            return [f"cannot be opened ({reason})"]
        seen = _Seen()
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and not (seen.loaded and seen.idle_for(_QUIET_SECONDS)):
            self._pump(0.1)
            while self._events:
                event = self._events.pop(0)
                if event.get("sessionId") == session:
                    seen.take(event["method"], event["params"])
        if not seen.loaded:
            seen.wrong.append(f"has not loaded within {limit:.0f} s")
        if text and text not in self._words(session):
            seen.wrong.append(f"does not show '{text}'")
        self._call("Target.closeTarget", {"targetId": target})
        return list(dict.fromkeys(seen.wrong))

    def _words(self, session: str) -> str:
        asked = {"expression": "document.body ? document.body.innerText : ''", "returnByValue": True}
        return str(self._call("Runtime.evaluate", asked, session)["result"].get("value", ""))

    def _call(self, method: str, params: Message | None = None, session: str = "") -> Message:
        """Ask the browser and wait for its answer; events that come first are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params or {}}
        data = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        try:
            os.write(self._out, data)
        except OSError as error:
            raise JobError(f"The browser {self._path} has ended: {error.strerror}.") from error
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            for answer in self._pump(0.5):
                if answer["id"] == self._number:
                    if "error" in answer:
                        raise JobError(f"The browser refuses {method}: {answer['error'].get('message', '')}.")
                    return dict(answer["result"])
        raise JobError(f"The browser {self._path} did not answer {method} within {_ANSWER_SECONDS:.0f} s.")

    def _pump(self, seconds: float) -> list[Message]:
        """Read what has come; returns answers and keeps events."""
        answers: list[Message] = []
        if not select.select([self._in], [], [], seconds)[0]:
            return answers
        data = os.read(self._in, 1 << 20)
        if not data:
            raise JobError(
                f"The browser {self._path} ended by itself: run it by hand, as '{self._path} --headless=new'."
            )
        *whole, self._buffer = (self._buffer + data).split(b"\0")
        for part in whole:
            message = json.loads(part)
            (answers if "id" in message else self._events).append(message)
        return answers


class _Seen:
    """What the events of one page add up to."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.loaded = False
        self._asked: dict[str, str] = {}
        """Addresses of what was asked for, by request."""
        self._under_way: set[str] = set()
        self._last = time.monotonic()

    def idle_for(self, seconds: float) -> bool:
        """Whether nothing is under way, and nothing has happened for so long."""
        return not self._under_way and time.monotonic() - self._last > seconds

    def take(self, method: str, params: Message) -> None:
        """Take in one event."""
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            said = details.get("exception", {}).get("description") or details.get("text", "")
            self._note(f"throws: {said}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            words = [str(part.get("value", part.get("description", ""))) for part in params["args"]]
            self._note(f"says in its console: {' '.join(words)}")
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            # What the network says there is known with its address from the events below.
            if params["entry"]["source"] != "network":
                self._note(f"says in its console: {params['entry']['text']}")
        elif method.startswith("Network."):
            self._request(method, params)

    def _request(self, method: str, params: Message) -> None:
        number = str(params.get("requestId", ""))
        if method == "Network.requestWillBeSent":
            self._asked[number] = _plain(str(params["request"]["url"]))
            # A stream of events has no end.
            if params.get("type") != "EventSource":
                self._under_way.add(number)
        elif method == "Network.responseReceived" and params["response"]["status"] >= 400:
            self._failed(number, f"answers {params['response']['status']}")
        elif method in ("Network.loadingFinished", "Network.loadingFailed"):
            self._under_way.discard(number)
            if method == "Network.loadingFailed" and not params.get("canceled"):
                self._failed(number, params.get("blockedReason") or params.get("errorText") or "failed")
        else:
            return
        self._last = time.monotonic()

    def _failed(self, number: str, reason: str) -> None:
        address = self._asked.get(number, "something")
        # Browsers ask for it unasked; a page that wants one names it.
        if not address.endswith("/favicon.ico"):
            self._note(f"loads {address}: {reason}")

    def _note(self, text: str) -> None:
        first = text.strip().splitlines()[0] if text.strip() else text
        self.wrong.append(first[:300])


def _plain(address: str) -> str:
    """An address without its query, which may hold what no log should."""
    return address.partition("?")[0][:200]
