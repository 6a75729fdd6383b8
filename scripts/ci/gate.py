"""The thin way to a host: SSH with a key that can say a few words there. Host keys are pinned, always."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from common import JobError, get, need, private_file, say, seconds

BUSY = 3
USAGE = 2
UNREACHABLE = 14
ENGINE_MISMATCH = 15
KEY_OPTION = "--idempotency-key"
_LOST = 255
"""What ssh itself ends with, whatever happened to the connection."""
_PAUSE = 5.0


@dataclass(frozen=True)
class Gate:
    """One host's gate, and the key to it."""

    argv: list[str]
    host: str

    @classmethod
    def open(cls, folder: Path) -> Gate:
        """Prepare the way from DEPLOY_HOST, DEPLOY_USER, DEPLOY_SSH_KEY, DEPLOY_KNOWN_HOSTS and DEPLOY_PORT.

        Raises `JobError` naming what is missing. The key is only in a file of `folder`, which belongs to this job.
        """
        host, user = need("DEPLOY_HOST"), get("DEPLOY_USER", "switchyard-ci")
        if host.startswith("-") or user.startswith("-"):
            raise JobError("DEPLOY_HOST and DEPLOY_USER are names, and begin with a letter or digit.", 2)
        key = private_file(folder, "key", need("DEPLOY_SSH_KEY"))
        known = private_file(folder, "known_hosts", need("DEPLOY_KNOWN_HOSTS"))
        options = {
            "UserKnownHostsFile": str(known),
            "GlobalKnownHostsFile": "none",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "BatchMode": "yes",
            "ConnectTimeout": "15",
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4",
            "RequestTTY": "no",
            "LogLevel": "ERROR",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return cls(
            ["ssh", "-F", "none", "-T", "-i", str(key), "-p", get("DEPLOY_PORT", "22"), *words, f"{user}@{host}"], host
        )

    def order(self, line: str) -> tuple[int, dict[str, Any]]:
        """Say a line and follow what becomes of it; returns exit code and result (empty when nothing was begun).

        A lost connection is no failure: the host goes on, and the same line with the same key again meets the same
        operation, also when that has ended. Waits DEPLOY_WAIT_SECONDS for another operation to end. Raises `JobError`
        when the host stays out of reach, or has an engine that does not know such keys: it would go back twice.
        """
        key = new_key()
        patience = seconds("DEPLOY_WAIT_SECONDS", 300)
        began = lost_since = 0.0
        while True:
            code, out, said = self._say(f"{line} {KEY_OPTION} {key}")
            result = _result(out)
            now = time.monotonic()
            began = began or now
            if code == _LOST:
                lost_since = lost_since or now
                self._judge_loss(said, now - lost_since)
            elif code == BUSY and not result.get("changed") and now - began < patience:
                say(f"{self.host} is busy; trying again for another {patience - (now - began):.0f} s")
            else:
                self._judge_refusal(code, said)
                return code, result
            if code == BUSY:
                lost_since = 0.0
            if code == BUSY and result:
                # An operation began and ended as busy; by its key we would only be told so again.
                key = new_key()
            time.sleep(_PAUSE)

    def show(self, line: str) -> int:
        """Say a line that only looks, and pass on what comes back."""
        return subprocess.run([*self.argv, line], check=False, stdin=subprocess.DEVNULL).returncode

    def _say(self, line: str) -> tuple[int, str, str]:
        """One connection: progress is passed on line by line; returns exit code, output, and what was said."""
        process = subprocess.Popen(
            [*self.argv, line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        said: list[str] = []
        reader = threading.Thread(target=_pass_on, args=(process.stderr, said), daemon=True)
        reader.start()
        out = process.stdout.read() if process.stdout else ""
        code = process.wait()
        reader.join(5)
        return code, out, "".join(said)

    def _judge_refusal(self, code: int, said: str) -> None:
        if code == USAGE and "Refused: after the version there may be" in said and KEY_OPTION not in said:
            raise JobError(
                f"{self.host} has an engine that does not know {KEY_OPTION}, and did nothing: run provision.yml.",
                ENGINE_MISMATCH,
            )

    def _judge_loss(self, said: str, lasted: float) -> None:
        if "Host key verification failed" in said or "HOST IDENTIFICATION HAS CHANGED" in said:
            raise JobError(
                f"{self.host} shows another host key than DEPLOY_KNOWN_HOSTS pins: if the host was rebuilt, pin its "
                "new key; if not, somebody is in between.",
                UNREACHABLE,
            )
        if "Permission denied" in said or "error in libcrypto" in said or "invalid format" in said:
            raise JobError(
                f"{self.host} refuses DEPLOY_SSH_KEY: it is not in deploy_access_keys, has expired, or may not come "
                "from this address.",
                UNREACHABLE,
            )
        if lasted > seconds("DEPLOY_RECONNECT_SECONDS", 120):
            raise JobError(
                f"{self.host} cannot be reached. What was begun there finishes or reverts by itself; 'status' tells.",
                UNREACHABLE,
            )
        say(f"the connection to {self.host} was lost; what was begun goes on there, connecting again")


def new_key() -> str:
    """What makes an order one, however often it is said: the time (UTC) and digits that no other order has."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(16)}"


def _pass_on(stream: IO[str] | None, said: list[str]) -> None:
    for line in stream or ():
        said.append(line)
        sys.stderr.write(line)
        sys.stderr.flush()


def _result(out: str) -> dict[str, Any]:
    try:
        data = json.loads(out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return data if isinstance(data, dict) else {}
