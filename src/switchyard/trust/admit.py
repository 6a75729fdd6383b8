"""The gate: every image of a release passes the environment's policy, or the release is refused before it exists.

It stands in preflight, on the host, behind the resolving of digests: whoever asks (Ansible, a CI key, a person), what
is checked is the digest that will run. A rollback does not pass here again: its record names digests that did.
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from switchyard.engine import docker, records
from switchyard.engine.announce import announce
from switchyard.engine.operation import Operation
from switchyard.engine.records import Record
from switchyard.errors import Exit, SwitchyardError
from switchyard.request import Request, Service
from switchyard.trust import report, scanner, signature
from switchyard.trust.policy import Refused, is_allowed

EVIDENCE = "trust.json"
"""In the record's directory: what was checked, and what was found."""

_SHOWN = 3
_SOON_DAYS = 14


@dataclass
class _Gate:
    op: Operation
    request: Request
    digests: dict[str, str]
    live: Record | None
    daemon: dict[str, Any]
    today: date = field(default_factory=lambda: datetime.now(UTC).date())
    refused: list[str] = field(default_factory=list)
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    reports: dict[str, list[report.Finding]] = field(default_factory=dict)
    known: list[Record] = field(default_factory=list)
    """Every release of this application that the host still knows, newest first."""

    def reference(self, name: str) -> str:
        return f"{self.request.services[name].image}@{self.digests[name]}"

    def stage(self, check: Callable[[str, Service], None]) -> None:
        """Run one check on every service; a refusal ends it here, unless somebody gave a reason to go on."""
        for name, service in self.request.services.items():
            try:
                check(name, service)
            except Refused as error:
                self.refused.append(f"{error}.")
        if self.refused and not self.request.image_override:
            raise SwitchyardError(self.refused[0], Exit.PREFLIGHT, "\n".join(self.refused[1:]))

    def registry(self, _: str, service: Service) -> None:
        allowed = self.request.image_policy.registries
        if not is_allowed(service.image, allowed):
            raise Refused(
                f"{service.image} is in none of the allowed registries ({', '.join(allowed)}; "
                "app_image_policy.registries)"
            )

    def tag(self, name: str, service: Service) -> None:
        """A tag means what it meant when a release was made of it; a record is the proof."""
        if not service.tag:
            return
        for record in self.known:
            for other, spec in record.request.services.items():
                if spec.reference == service.reference and record.digests[other] != self.digests[name]:
                    raise Refused(
                        f"{service.reference} has moved: it is {self.digests[name][:19]} now and was "
                        f"{record.digests[other][:19]} in release {record.id}. Push what is new under a new version "
                        "(or set app_image_policy.immutable_tags to false)"
                    )

    def signature(self, name: str, service: Service) -> None:
        registry = docker.registry_of(service.image)
        plain = docker.is_plain(self.daemon, registry)
        key = signature.verify(self.reference(name), self.request.image_policy.public_keys, plain_http=plain)
        self.evidence[name]["signed_by"] = key

    def _scanned(self, reference: str) -> list[report.Finding]:
        if reference not in self.reports:
            self.op.say(f"preflight: scanning {reference}")
            self.reports[reference] = scanner.findings(self.request.image_policy, reference)
        return self.reports[reference]

    def scan(self, name: str, service: Service) -> None:
        policy, reference = self.request.image_policy, self.reference(name)
        found = self._scanned(reference)
        live: list[report.Finding] | None = None
        compared = ""
        if policy.scan == "compare" and self.live and name in self.live.request.services:
            compared = self.live.pinned(name)
            # What runs now is asked about again: only the same scanner on the same day can be compared with.
            live = self._scanned(compared)
        verdict = report.judge(
            found,
            service=name,
            severities=policy.blocking,
            waivers=policy.exceptions,
            today=self.today,
            live=live,
        )
        self.evidence[name]["scan"] = {
            "counts": verdict.counts,
            "compared_with": compared,
            "blocking": [str(finding) for finding in verdict.blocking],
            "known": [str(finding) for finding in verdict.known],
            "waived": [f"{finding} until {waiver.expires}: {waiver.reason}" for finding, waiver in verdict.waived],
        }
        for finding, waiver in verdict.waived:
            left = (date.fromisoformat(waiver.expires) - self.today).days
            if left <= _SOON_DAYS:
                self.op.say(f"preflight: the exception for {finding.id} runs out in {left} days ({waiver.reason})")
        if verdict.blocking:
            raise Refused(_sentence(verdict, service, policy.severity, compared=bool(compared)))
        counted = ", ".join(f"{number} {severity}" for severity, number in sorted(verdict.counts.items()))
        self.op.say(f"preflight: {service.reference}: {counted or 'nothing found'}, {len(verdict.waived)} excepted")

    def sbom(self, name: str, _: Service) -> None:
        file = f"sbom-{name}.json"
        self.files[file] = scanner.bill_of_materials(self.request.image_policy, self.reference(name))
        self.evidence[name]["sbom"] = file


def _sentence(verdict: report.Verdict, service: Service, severity: str, *, compared: bool) -> str:
    number = len(verdict.blocking)
    shown = "; ".join(map(str, verdict.blocking[:_SHOWN])) + ("; ..." if number > _SHOWN else "")
    worse = "" if severity == "critical" else " or worse"
    new = " that the live release does not have" if compared else ""
    ran_out = f" (the exception for {', '.join(verdict.expired[:_SHOWN])} has run out)" if verdict.expired else ""
    return (
        f"{service.reference} has {number} finding{'s' if number > 1 else ''} of severity {severity}{worse}{new}: "
        f"{shown}{ran_out}. Update what it is built on, or add to app_image_policy.exceptions with reason and date"
    )


def admit(
    op: Operation, request: Request, digests: dict[str, str], live: Record | None, daemon: dict[str, Any]
) -> dict[str, str]:
    """Hold the images against the policy; returns the files that go into the record, by name.

    Raises `SwitchyardError` (preflight) with one sentence when an image does not pass. With `image_override`, a reason,
    it passes all the same, and ledger and team learn who overrode what.
    """
    policy = request.image_policy
    gate = _Gate(op, request, digests, live, daemon)
    gate.evidence = {name: {"image": gate.reference(name)} for name in request.services}
    if policy.registries:
        gate.stage(gate.registry)
    if policy.immutable_tags:
        gate.known = _known(op)
        gate.stage(gate.tag)
    if policy.signature_required:
        op.say("preflight: verifying signatures")
        gate.stage(gate.signature)
    if policy.scan != "none":
        gate.stage(gate.scan)
    if policy.sbom_command:
        gate.stage(gate.sbom)
    if gate.refused:
        _overridden(op, request, gate.refused)
    elif request.image_override:
        op.say("preflight: the images pass; the override was not needed")
    if not (gate.refused or policy.signature_required or policy.scan != "none" or policy.sbom_command):
        return {}
    document = {
        "checked": datetime.now(UTC).isoformat(timespec="seconds"),
        "services": gate.evidence,
        "override": {"reason": request.image_override, "who": op.who, "refused": gate.refused}
        if gate.refused
        else None,
    }
    return {EVIDENCE: json.dumps(document, indent=1) + "\n", **gate.files}


def _known(op: Operation) -> list[Record]:
    found = []
    for identity in reversed(records.ids(op.paths)):
        # A damaged record proves nothing, and must not keep newer releases from going live.
        with contextlib.suppress(SwitchyardError):
            found.append(records.load(op.paths, identity))
    return found


def _overridden(op: Operation, request: Request, refused: list[str]) -> None:
    op.ledger.append(
        "override", op=op.id, who=op.who, version=request.version, reason=request.image_override, refused=refused
    )
    for sentence in refused:
        op.say(f"preflight: OVERRIDDEN: {sentence}")
    title = f"{op.who or 'Somebody'} overrode the image policy for {request.version}: {request.image_override}"
    announce("deploy.override", title, severity="warning", app=str(op.paths.name), refused=refused)
