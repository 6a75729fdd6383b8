"""Judges a scanner's report by our own reading of it: Trivy's JSON, schema version 2. Pure.

The format is described in Trivy's documentation (Reporting, JSON) and its `types.Report`. Whatever does not look like
a complete report about this very image is refused: a gate that cannot read does not open.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from switchyard.trust.policy import SEVERITIES, Waiver

_SCHEMA = 2
_KINDS = {"Vulnerabilities": "VulnerabilityID", "Secrets": "RuleID", "Misconfigurations": "ID"}
"""What a result may list, and the key that names each entry."""

END_OF_SUPPORT = "os-end-of-support"
"""Our name for a distribution that gets no fixes any more, and of which a scanner therefore knows little."""


class Unreadable(ValueError):
    """The report says nothing that could be relied on; the text says why."""


@dataclass(frozen=True)
class Finding:
    """One thing that a scanner found."""

    id: str
    package: str
    severity: str
    fixed: str = ""

    def __str__(self) -> str:
        """The finding as an operator reads it."""
        fix = f", fixed in {self.fixed}" if self.fixed else ", no fix yet"
        return f"{self.id} in {self.package}{fix}" if self.package else self.id


def read(text: str, digest: str) -> list[Finding]:
    """Read a report about the image with this digest; raises `Unreadable`."""
    if not text.strip():
        raise Unreadable("it printed nothing")
    try:
        report = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable("what it printed is no JSON") from error
    try:
        return _findings(report, digest)
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"its report is not in the form of Trivy's JSON ({type(error).__name__}: {error})") from error


def _findings(report: Any, digest: str) -> list[Finding]:
    if not isinstance(report, dict) or report.get("SchemaVersion") != _SCHEMA:
        raise Unreadable(f"its report does not say SchemaVersion {_SCHEMA}")
    about = [str(report["ArtifactName"]), *map(str, report.get("Metadata", {}).get("RepoDigests") or [])]
    if not any(name.endswith(f"@{digest}") for name in about):
        raise Unreadable(f"its report is about another image ({about[0]})")
    results = report.get("Results")
    if not isinstance(results, list) or not results:
        raise Unreadable("its report says that nothing was looked at")
    found = []
    system = report.get("Metadata", {}).get("OS") or {}
    if system.get("EOSL"):
        found.append(
            Finding(END_OF_SUPPORT, f"{system.get('Family', '')} {system.get('Name', '')}".strip(), "critical")
        )
    for result in results:
        for kind, key in _KINDS.items():
            found += [_finding(entry, key) for entry in result.get(kind) or [] if entry.get("Status") != "PASS"]
    return found


def _finding(entry: dict[str, Any], key: str) -> Finding:
    severity = str(entry["Severity"]).lower()
    if severity not in SEVERITIES:
        raise Unreadable(f"its report has the severity '{entry['Severity']}', which Trivy does not know")
    package = f"{entry.get('PkgName', '')} {entry.get('InstalledVersion', '')}".strip()
    return Finding(str(entry[key]), package, severity, str(entry.get("FixedVersion") or ""))


@dataclass(frozen=True)
class Verdict:
    """What a report means for one image."""

    blocking: list[Finding]
    waived: list[tuple[Finding, Waiver]]
    known: list[Finding]
    """Blocking by themselves, and let pass because the live release has them, too."""
    counts: dict[str, int]
    expired: list[str]
    """Findings that block because their exception has run out."""


def judge(
    found: Iterable[Finding],
    *,
    service: str,
    severities: tuple[str, ...],
    waivers: list[Waiver],
    today: date,
    live: Iterable[Finding] | None = None,
) -> Verdict:
    """Sort findings into those that block and those that do not.

    `live` has the findings of what runs now, when only new ones are to block. The same finding in another package is
    a new one; in another version of the same package it is not.
    """
    there = {_identity(finding) for finding in live or ()}
    blocking, waived, known, expired = [], [], [], []
    found = list(found)
    for finding in sorted(set(found), key=lambda f: (-SEVERITIES.index(f.severity), f.id, f.package)):
        if finding.severity not in severities:
            continue
        waiver = next((w for w in waivers if w.holds(finding.id, service, today)), None)
        if waiver:
            waived.append((finding, waiver))
        elif _identity(finding) in there:
            known.append(finding)
        else:
            blocking.append(finding)
            expired += [finding.id for w in waivers if w.names(finding.id, service)][:1]
    return Verdict(blocking, waived, known, dict(Counter(finding.severity for finding in found)), expired)


def _identity(finding: Finding) -> tuple[str, str]:
    return finding.id, finding.package.partition(" ")[0]
