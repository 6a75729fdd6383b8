"""Stops an operation in the middle of a phase, so that a job can be killed exactly there."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from tests.bed import Host

# Looks for three minutes at most, and stops the process that holds the lease as soon as the phase is reached.
_HOLD = """
import json, os, signal, sys, time
path, phase, end = sys.argv[1], sys.argv[2], time.monotonic() + 180
while time.monotonic() < end:
    try:
        lease = json.load(open(path))
    except (OSError, ValueError):
        continue
    if lease["op"] and lease["phase"] == phase:
        os.kill(lease["pid"], signal.SIGSTOP)
        print(lease["pid"])
        sys.exit()
    time.sleep(0.0005)
sys.exit("the phase was never reached")
"""


class Hold:
    """`with Hold(host, app, phase) as hold:` start the job, `hold.reached()`, kill it; at the end the host goes on."""

    def __init__(self, host: Host, app: str, phase: str) -> None:
        self._host, self._argv = host, ["python3", "-c", _HOLD, f"/var/lib/switchyard/{app}/lease.json", phase]
        self._pid = ""
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        self._pid = self._host.exec(self._argv, check=False, timeout=240).stdout.strip()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(240)
        if self._pid:
            self._host.exec(["kill", "-CONT", self._pid], check=False)

    def reached(self) -> None:
        """Wait until the operation stands still in the phase."""
        self._thread.join(240)
        assert self._pid, "the phase was never reached"
