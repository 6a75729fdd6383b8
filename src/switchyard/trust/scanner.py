"""Runs what the environment named as its scanner, and its maker of bills of materials. Both fail closed."""

import json

from switchyard.engine.effects import Completed, run
from switchyard.errors import SwitchyardError
from switchyard.trust.policy import IMAGE, ImagePolicy, Refused
from switchyard.trust.report import Finding, Unreadable, read

_ENVIRONMENT = {"HOME": "/root"}
"""A unit of systemd has no HOME; scanners keep their database and find registry logins there."""


def findings(policy: ImagePolicy, reference: str) -> list[Finding]:
    """Scan an image by digest; raises `Refused` when there is no report to rely on."""
    done = _run(policy.scan_command, reference, policy.scan_timeout, "trust.scan")
    if done.code != 0:
        raise Refused(f"{_why(policy.scan_command, done)}, so nothing is known about {reference}")
    try:
        return read(done.out, reference.rpartition("@")[2])
    except Unreadable as error:
        raise Refused(f"The scanner {policy.scan_command[0]} cannot be relied on for {reference}: {error}") from error


def bill_of_materials(policy: ImagePolicy, reference: str) -> str:
    """Have the image's SBOM made (CycloneDX or SPDX, as JSON); raises `Refused` when there is none."""
    done = _run(policy.sbom_command, reference, policy.scan_timeout, "trust.sbom")
    if done.code != 0:
        raise Refused(f"{_why(policy.sbom_command, done)}, so there is no bill of materials of {reference}")
    try:
        document = json.loads(done.out)
        known = document.get("bomFormat") == "CycloneDX" or str(document.get("spdxVersion", "")).startswith("SPDX-")
    except (ValueError, RecursionError, AttributeError):
        known = False
    if not known:
        raise Refused(f"{policy.sbom_command[0]} printed neither CycloneDX nor SPDX in JSON for {reference}")
    return done.out


def _run(command: list[str], reference: str, seconds: float, step: str) -> Completed:
    # `timeout` ends the whole process group: a wrapper's child would otherwise hold our pipes for ever.
    argv = ["nice", "-n", "10", "timeout", "--kill-after=5", f"{seconds:g}"]
    argv += [word.replace(IMAGE, reference) for word in command]
    try:
        return run(argv, step=step, timeout=seconds + 30, environment=_ENVIRONMENT, check=False)
    except SwitchyardError as error:
        raise Refused(error.message.rstrip(".")) from error


def _why(command: list[str], done: Completed) -> str:
    if done.code == 127:
        return f"The scanner {command[0]} is not on this host"
    if done.code in (124, 137):
        return f"The scanner {command[0]} did not finish in time (app_image_policy.scan_timeout)"
    return f"The scanner {command[0]} failed with exit code {done.code} ({done.reason[:160]})"
