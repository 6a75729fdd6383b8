"""Running programs, and getting them from the distribution when they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence

from tests.bed.errors import BedError, say

Result = subprocess.CompletedProcess[str]


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> Result:
    """Run a program to its end, with captured text; a failure becomes one sentence with its last lines."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            # Without input a program must not wait for the terminal of whoever started the bed.
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            env={**os.environ, **env} if env else None,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise BedError(f"{argv[0]} is not installed.") from error
    except subprocess.TimeoutExpired as error:
        raise BedError(f"{' '.join(argv[:3])} did not finish within {timeout:.0f} s.") from error
    if check and done.returncode != 0:
        raise BedError(f"{' '.join(argv[:3])} failed (exit {done.returncode}): {tail(done)}")
    return done


def tail(done: Result, lines: int = 4) -> str:
    """Return the last lines of what a program said, on one line."""
    text = (done.stderr or "").strip() or (done.stdout or "").strip()
    return " | ".join(line.strip() for line in text.splitlines()[-lines:]) or "it said nothing"


def as_root(argv: Sequence[str]) -> list[str]:
    """Prefix a command with sudo where the caller is not root."""
    return list(argv) if os.geteuid() == 0 else ["sudo", *argv]


def apt_install(*packages: str, why: str) -> None:
    """Install Debian packages, saying so first; waits for another package manager to finish."""
    if shutil.which("apt-get") is None:
        raise BedError(f"{why} needs {', '.join(packages)}; this system has no apt-get, so install them yourself.")
    say(f"installing {' '.join(packages)} with apt-get ({why})")
    env = ["env", "DEBIAN_FRONTEND=noninteractive"]
    locked = "Could not get lock", "Unable to acquire"
    done = None
    # apt can wait for dpkg's lock but not for that of its lists, hence the loop.
    for _ in range(60):
        done = run(as_root([*env, "apt-get", "-q", "update"]), check=False)
        if done.returncode == 0:
            done = run(
                as_root([*env, "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "install", "-y", *packages]),
                check=False,
            )
        if done.returncode == 0:
            return
        if not any(text in done.stderr for text in locked):
            break
        time.sleep(3)
    assert done is not None
    raise BedError(f"apt-get could not install {' '.join(packages)}: {tail(done)}")


def need(program: str, package: str, why: str) -> str:
    """Return the path of a program, installing its package when it is missing."""
    found = shutil.which(program)
    if found is None:
        apt_install(package, why=why)
        found = shutil.which(program)
    if found is None:
        raise BedError(f"The package {package} did not bring the program {program}.")
    return found
