"""Takes a change of the way in back by itself unless somebody who came in afterwards confirms it.

Runs on hosts, so it uses the standard library alone. The change is made at once; what undoes it waits for a timer and
for the next boot, whichever comes first. So neither a dead control machine nor a power cut leaves a host that nobody
can log in to.
"""

from __future__ import annotations

import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from ansible_collections.switchyard.stack.plugins.module_utils.placing import Placing

HOME = Path("/var/lib/switchyard-guard")
UNITS = Path("/etc/systemd/system")

_UNDO = """#!/bin/sh
# Made by Switchyard: undoes a change of {path} that nobody confirmed.
if [ -e {saved} ]; then
  cp -p {saved} {path}.undo && mv -f {path}.undo {path}
else
  rm -f {path}
fi
{activate}
systemctl disable --quiet {unit}
rm -rf {unit_file} {home}
"""

_UNIT = """# Placed by Switchyard while a change of {path} waits for its confirmation.
[Unit]
Description=Undo an unconfirmed change of {path}

[Service]
Type=oneshot
ExecStart=/bin/sh {script}

[Install]
WantedBy=multi-user.target
"""


class Guard:
    """One guarded file; `activate` is the shell command that makes the file on disk (or its absence) count."""

    def __init__(self, module: Any, name: str, path: str, activate: str) -> None:
        self.module, self.path, self.activate = module, Path(path), activate
        self._home = HOME / name
        self._script = self._home / "undo"
        self._unit = f"switchyard-guard-{name}.service"
        self._timer = f"switchyard-guard-{name}-timer"
        self._unit_file = UNITS / self._unit

    @property
    def armed(self) -> bool:
        """Tell whether a change waits for its confirmation."""
        return self._script.exists()

    def arm(self, seconds: int) -> None:
        """Remember the file as it is, to be brought back after `seconds` and at boot."""
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(mode=0o700, parents=True)
        saved = self._home / "saved"
        if self.path.exists():
            shutil.copy2(self.path, saved)
        words = {
            "path": shlex.quote(str(self.path)),
            "saved": shlex.quote(str(saved)),
            "home": shlex.quote(str(self._home)),
            "unit_file": shlex.quote(str(self._unit_file)),
            "unit": self._unit,
            "activate": self.activate,
            "script": shlex.quote(str(self._script)),
        }
        placing = Placing(self.module)
        placing.file(str(self._script), _UNDO.format(**words), mode=0o700)
        placing.file(str(self._unit_file), _UNIT.format(**words))
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "enable", "--quiet", self._unit)
        timing = ("--on-active", str(seconds), "--timer-property=AccuracySec=1s")
        self.run("systemd-run", "--quiet", f"--unit={self._timer}", *timing, "systemctl", "start", self._unit)

    def confirm(self) -> None:
        """Keep the change."""
        self.module.run_command(["systemctl", "stop", f"{self._timer}.timer"])
        if self.armed:
            self.module.run_command(["systemctl", "disable", "--quiet", self._unit])
        self._unit_file.unlink(missing_ok=True)
        shutil.rmtree(self._home, ignore_errors=True)
        self.run("systemctl", "daemon-reload")

    def undo(self) -> None:
        """Bring the file back now, as the timer would."""
        self.module.run_command(["systemctl", "stop", f"{self._timer}.timer"])
        self.run("/bin/sh", str(self._script))
        self.run("systemctl", "daemon-reload")

    def refuse(self, sentence: str) -> None:
        """Undo and fail with this sentence."""
        self.undo()
        self.module.fail_json(msg=f"{sentence} The old settings are back.")

    def run(self, *argv: str) -> str:
        """Run a command that has to succeed."""
        code, out, err = self.module.run_command(list(argv))
        if code != 0:
            self.module.fail_json(msg=f"'{shlex.join(argv)}' failed: {err.strip() or out.strip()}.")
        return str(out)


def settle(seconds: float = 0.2) -> None:
    """Give a signalled daemon time to read its settings before somebody knocks."""
    time.sleep(seconds)
