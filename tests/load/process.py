"""A run in a process of its own, so that neither the test nor the load disturbs the other's timing.

The two processes speak in lines of JSON over the child's standard input and output. A parent that dies
closes the pipe, which ends the child; nothing is left running.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.load.config import BadUsage, LoadConfig
from tests.load.report import Report, Snapshot, Switch

_ROOT = Path(__file__).resolve().parents[2]
_START_LIMIT = 120.0
_AUDIT_LIMIT = 300.0
_SENT_LIMIT = 120.0


class LoadDied(RuntimeError):
    """The child ended without a report: the run proves nothing."""


class LoadProcess:
    """`start`, look at `snapshot` as often as wanted, `stop`; as a context manager it never outlives the block."""

    def __init__(self, config: LoadConfig) -> None:
        self.config = config
        self._child: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._begun = threading.Event()
        self._snapshot = Snapshot()
        self._refusal: str | None = None
        self._report: Report | None = None

    def start(self) -> Self:
        """Start the child and return when it sends."""
        fields = self.config.as_dict()
        if self.config.ca is not None:
            fields["ca"] = str(Path(self.config.ca).resolve())
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.load.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._reader = threading.Thread(target=self._read, args=(self._child,), daemon=True)
        self._reader.start()
        self._tell(json.dumps(fields))
        begun = self._begun.wait(_START_LIMIT)
        if self._refusal is not None:
            self.kill()
            raise BadUsage(self._refusal)
        if not begun or self._child.poll() is not None:
            self.kill()
            raise LoadDied("the load client did not start")
        return self

    def snapshot(self) -> Snapshot:
        """Return the running totals, not older than about a quarter of a second."""
        return self._snapshot

    def await_sent(self, count: int) -> None:
        """Wait until so many requests were sent in all: how long that takes depends on how busy the machine is."""
        deadline = time.monotonic() + _SENT_LIMIT
        while self._snapshot.sent < count:
            if self._child is None or self._child.poll() is not None or time.monotonic() > deadline:
                raise LoadDied(f"the load client sent {self._snapshot.sent} requests, not {count}")
            time.sleep(0.05)

    def stop(self, switches: Sequence[Switch] | None = None) -> Report:
        """Stop sending, let what is in flight complete, look up the writes, and report."""
        if self._child is None or self._reader is None:
            raise LoadDied("the load client was not started")
        self._tell("stop")
        self._reader.join(self.config.finish_limit + self.config.timeout + _AUDIT_LIMIT)
        self.kill()
        if self._report is None:
            raise LoadDied(f"the load client ended with status {self._child.returncode} and no report")
        return self._report.judge(switches)

    def kill(self) -> None:
        """End the child at once, if it has not ended by itself."""
        child = self._child
        if child is None:
            return
        if child.poll() is None:
            child.kill()
        child.wait()
        if self._reader is not None:
            self._reader.join()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None and not pipe.closed:
                # What could not be told before is tried once more here.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> Self:
        # One that sends already is not started twice: the first child would go on unseen.
        return self if self._child is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _tell(self, line: str) -> None:
        pipe = self._child.stdin if self._child is not None else None
        if pipe is None or pipe.closed:
            return
        try:
            pipe.write(line + "\n")
            pipe.flush()
        except BrokenPipeError:
            pass  # it has ended; the missing report says so

    def _read(self, child: subprocess.Popen[str]) -> None:
        try:
            for line in child.stdout or ():
                if line.endswith("\n"):  # else it was killed while it wrote
                    self._take(json.loads(line))
        finally:
            self._begun.set()  # whoever waits for the start must not wait for a child that is gone

    def _take(self, message: dict[str, Any]) -> None:
        if "snapshot" in message:
            self._snapshot = Snapshot(**message["snapshot"])
            self._begun.set()
        elif "refused" in message:
            self._refusal = message["refused"]
        elif "report" in message:
            self._report = Report.from_dict(message["report"])
