#!/usr/bin/env python3
"""Releases VERSION to SWITCHYARD_ENVIRONMENT, or with ORDER=rollback goes back (to VERSION, or the previous one).

SWITCHYARD_WAY=gate (default): one SSH command to the host's gate. SWITCHYARD_WAY=ansible: the playbook, from the
checkout that this script lies in. Outputs: result, version, release, previous, changed, operation, seconds.
"""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import (
    ROOT,
    JobError,
    commit,
    environment,
    fail,
    get,
    need,
    output,
    private_file,
    private_folder,
    run_url,
    summary,
    table,
    version_of,
)
from gate import Gate

_MEANINGS = {
    0: "done", 2: "refused: usage", 3: "busy", 4: "refused in preflight", 5: "not healthy", 6: "reverted",
    7: "migration failed", 8: "interrupted and recovered", 9: "could not be judged", 10: "unknown release",
    11: "already live", 12: "never healthy", 13: "schema moved too far", 14: "unreachable",
    15: "engine and checkout differ",
}  # fmt: skip


def by_gate(folder: Path, order: str, version: str) -> tuple[int, dict[str, Any]]:
    """Say it at the gate, with where it comes from."""
    words = [order, *([version] if version else [])]
    if commit():
        words += ["--commit", commit()]
    if run_url().startswith("https://"):
        words += ["--run", run_url()]
    return Gate.open(folder).order(" ".join(words))


def by_ansible(folder: Path, order: str, version: str) -> tuple[int, dict[str, Any]]:
    """Run the playbook, or for a rollback the script, with pinned host keys and the vault's password in a file."""
    name, result = environment(), folder / "result.json"
    key = private_file(folder, "key", need("DEPLOY_SSH_KEY"))
    known = private_file(folder, "known_hosts", need("DEPLOY_KNOWN_HOSTS"))
    pinned = f"-o UserKnownHostsFile={known} -o GlobalKnownHostsFile=none -o StrictHostKeyChecking=yes"
    access = ["-e", f"env={name}", "-e", json.dumps({"engine_known_hosts": str(known), "engine_private_key": str(key)})]
    if get("VAULT_PASSWORD"):
        access += ["--vault-id", f"{name}@{private_file(folder, 'vault', get('VAULT_PASSWORD'))}"]
    tools = Path(sys.executable).parent if get("VIRTUAL_ENV") else ROOT / ".venv" / "bin"
    # The secrets are in files now; no program that is started needs them in its environment.
    secret = {"DEPLOY_SSH_KEY", "DEPLOY_KNOWN_HOSTS", "VAULT_PASSWORD"}
    clean = {key: value for key, value in os.environ.items() if key not in secret}
    clean |= {"SWITCHYARD_RESULT": str(result), "PATH": f"{tools}:{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": "0"}
    # Ansible puts these before what the inventory says in ansible_ssh_common_args, and of an option that is given twice
    # ssh takes the first: host keys are this job's. Keys to log in with add up; this job's is tried first.
    ours = f"{pinned} -o IdentitiesOnly=yes -o IdentityFile={key}"
    clean["ANSIBLE_SSH_ARGS"] = f"{ours} {_ssh_args()}"
    if order == "deploy":
        origin = {
            "version": version,
            "app_revision": commit(),
            "run_url": run_url(),
            "who": f"ci:{get('ACTOR', 'job')}",
        }
        argv = ["ansible-playbook", "deploy.yml", *access, "-e", json.dumps(origin)]
        done = subprocess.run(argv, cwd=ROOT, env=clean, check=False, stdin=subprocess.DEVNULL)
        found = json.loads(result.read_text()) if result.is_file() else {}
        return (int(found.get("code", 1)) or done.returncode) if done.returncode else 0, found
    done = subprocess.run(["ansible-playbook", "playbooks/hosts.yml", *access], cwd=ROOT, env=clean, check=False)
    if done.returncode:
        raise JobError("The inventory cannot be read: see above.", 2)
    argv = ["scripts/rollback.sh", name, *([version] if version else []), "--json"]
    back = subprocess.run(argv, cwd=ROOT, env=clean, check=False, stdout=subprocess.PIPE, text=True)
    return back.returncode, json.loads(back.stdout) if back.stdout.strip().startswith("{") else {}


def _ssh_args() -> str:
    """What the checkout itself tells ssh, which the environment would replace."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "ansible.cfg")
    return settings.get("ssh_connection", "ssh_args", fallback="")


def report(order: str, wanted: str, code: int, result: dict[str, Any], took: float) -> None:
    """The table that people read, and the outputs that later jobs read."""
    phases = dict(result.get("phases") or {})
    # What could not be judged has not failed: both colours run, and the message says which of them is live.
    ended = {0: "done", 9: _MEANINGS[9]}.get(code, "failed")
    rows: list[tuple[object, object]] = [
        ("environment", environment()),
        ("version", result.get("version") or wanted or "-"),
        ("release", result.get("release") or "-"),
        ("before", result.get("previous") or "-"),
        ("result", f"{_MEANINGS.get(code, 'failed')} (exit code {code})"),
        ("message", result.get("message") or "-"),
        *((f"phase {name}", f"{float(spent):.1f} s") for name, spent in phases.items()),
        ("whole job step", f"{took:.1f} s"),
    ]
    if ended == "failed" and phases:
        rows.append(("failed in phase", list(phases)[-1]))
    summary(f"### {order.capitalize()} {ended}\n\n{table(('', ''), rows)}")
    output(
        {
            "result": _MEANINGS.get(code, "failed"),
            "version": result.get("version") or wanted,
            "release": result.get("release", ""),
            "previous": result.get("previous", ""),
            "changed": str(bool(result.get("changed"))).lower(),
            "operation": result.get("op", ""),
            "message": result.get("message", ""),
            "seconds": f"{took:.1f}",
        }
    )


def main() -> int:
    """Do it; the exit code is the operation's."""
    order, way = get("ORDER", "deploy"), get("SWITCHYARD_WAY", "gate")
    if order not in ("deploy", "rollback") or way not in ("gate", "ansible"):
        raise JobError("ORDER is deploy or rollback, SWITCHYARD_WAY is gate or ansible.", 2)
    version = version_of(need("VERSION")) if order == "deploy" or get("VERSION") else ""
    environment()
    began = time.monotonic()
    code = 1
    result: dict[str, Any] = {}
    try:
        with private_folder() as folder:
            code, result = (by_gate if way == "gate" else by_ansible)(folder, order, version)
    except JobError as error:
        code, result = error.code, {"message": str(error)}
        raise
    finally:
        report(order, version, code, result, time.monotonic() - began)
    return code


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except JobError as error:
        fail(error)
