"""The gate for images. Reports are constructed after Trivy's schema, since Trivy itself cannot be had here."""

from __future__ import annotations

import json
import stat
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.engine import phases, preflight
from switchyard.engine.effects import Completed
from switchyard.errors import Exit, SwitchyardError
from switchyard.trust import policy, report, scanner, signature
from switchyard.trust.policy import ImagePolicy, Refused, Waiver
from switchyard.trust.report import END_OF_SUPPORT, Finding, Unreadable
from tests.unit.engine_world import QUICK, World, digest, make_request, service

KEY = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"
DIGEST = digest("image")
TODAY = date(2026, 5, 1)
SCANNER = ["scan", "{image}"]


def trivy(of: str, *found: tuple[str, str, str], **changes: Any) -> dict[str, Any]:
    """A report in the form of Trivy's JSON; `found` is id, package and severity."""
    entries = [
        {"VulnerabilityID": i, "PkgName": p, "InstalledVersion": "1.0-1", "Severity": s, "Status": "affected"}
        for i, p, s in found
    ]
    base = {
        "SchemaVersion": 2,
        "CreatedAt": "2026-05-01T08:00:00Z",
        "ArtifactName": f"registry.test/shop/api@{of}",
        "ArtifactType": "container_image",
        "Metadata": {"OS": {"Family": "debian", "Name": "13.1"}, "RepoDigests": [f"registry.test/shop/api@{of}"]},
        "Results": [
            {"Target": "debian 13.1", "Class": "os-pkgs", "Type": "debian", "Vulnerabilities": entries},
            {"Target": "app/uv.lock", "Class": "lang-pkgs", "Type": "uv"},
        ],
    }
    return base | changes


# Reading a report


def test_a_report_is_read() -> None:
    found = report.read(
        json.dumps(trivy(DIGEST, ("CVE-1", "openssl", "CRITICAL"), ("CVE-2", "zlib", "UNKNOWN"))), DIGEST
    )
    assert found == [Finding("CVE-1", "openssl 1.0-1", "critical"), Finding("CVE-2", "zlib 1.0-1", "unknown")]


def test_secrets_and_misconfigurations_are_findings_too() -> None:
    results = [
        {"Target": "/app/.env", "Class": "secret", "Secrets": [{"RuleID": "aws-key", "Severity": "CRITICAL"}]},
        {
            "Target": "Dockerfile",
            "Misconfigurations": [
                {"ID": "DS002", "Severity": "HIGH", "Status": "FAIL"},
                {"ID": "DS003", "Severity": "HIGH", "Status": "PASS"},
            ],
        },
    ]
    assert [f.id for f in report.read(json.dumps(trivy(DIGEST, Results=results)), DIGEST)] == ["aws-key", "DS002"]


def test_a_distribution_without_support_is_a_finding() -> None:
    metadata = {"OS": {"Family": "debian", "Name": "8", "EOSL": True}}
    found = report.read(json.dumps(trivy(DIGEST, Metadata=metadata)), DIGEST)
    assert found == [Finding(END_OF_SUPPORT, "debian 8", "critical")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "printed nothing"),
        ("  \n", "printed nothing"),
        ("FATAL: database is locked", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "SchemaVersion"),
        ("null", "SchemaVersion"),
        (json.dumps(trivy(DIGEST, SchemaVersion=1)), "SchemaVersion 2"),
        (json.dumps(trivy(digest("other"))), "about another image"),
        (json.dumps(trivy(DIGEST, Results=[])), "nothing was looked at"),
        (json.dumps(trivy(DIGEST, Results=None)), "nothing was looked at"),
        (json.dumps(trivy(DIGEST, Results="none")), "nothing was looked at"),
        (json.dumps(trivy(DIGEST, Results=[7])), "not in the form"),
        (json.dumps(trivy(DIGEST, Results=[{"Vulnerabilities": [{"VulnerabilityID": "CVE-1"}]}])), "not in the form"),
        (json.dumps(trivy(DIGEST, Results=[{"Vulnerabilities": [{"Severity": "LOW"}]}])), "not in the form"),
        (json.dumps(trivy(DIGEST, Results=[{"Vulnerabilities": {"a": "b"}}])), "not in the form"),
        (json.dumps(trivy(DIGEST, Metadata=7)), "not in the form"),
        (json.dumps(trivy(DIGEST, ("CVE-1", "openssl", "TERRIBLE"))), "severity 'TERRIBLE'"),
    ],
)
def test_what_cannot_be_relied_on_is_refused(text: str, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        report.read(text, DIGEST)


@QUICK
@given(cut=st.integers(min_value=0, max_value=600))
def test_a_report_that_was_cut_short_is_refused(cut: int) -> None:
    text = json.dumps(trivy(DIGEST, ("CVE-1", "openssl", "CRITICAL")))
    with pytest.raises(Unreadable):
        report.read(text[: min(cut, len(text) - 1)], DIGEST)


@QUICK
@given(
    junk=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Severity", "x"]), inner),
        max_leaves=6,
    ),
    key=st.sampled_from(["Results", "Metadata", "ArtifactName", "SchemaVersion"]),
)
def test_garbage_never_becomes_a_clean_report_of_a_sick_image(junk: Any, key: str) -> None:
    """Whatever one field turns into: the finding is still there, or the report is refused."""
    changed = trivy(DIGEST, ("CVE-1", "openssl", "CRITICAL")) | {key: junk}
    try:
        found = report.read(json.dumps(changed), DIGEST)
    except Unreadable:
        return
    replaced = key == "Results" and isinstance(junk, list)
    assert "CVE-1" in [finding.id for finding in found] or replaced


# Judging it

CRITICAL = Finding("CVE-1", "openssl 1.0", "critical")
HIGH = Finding("CVE-2", "zlib 1.3", "high")


def judged(*found: Finding, waivers: list[Waiver] | None = None, **changes: Any) -> report.Verdict:
    settings: dict[str, Any] = {"service": "api", "severities": ("critical",), "today": TODAY} | changes
    return report.judge(found, waivers=waivers or [], **settings)


def test_the_chosen_severity_and_worse_block() -> None:
    assert judged(CRITICAL, HIGH).blocking == [CRITICAL]
    assert judged(CRITICAL, HIGH, severities=ImagePolicy(severity="high").blocking).blocking == [CRITICAL, HIGH]
    assert judged(CRITICAL, HIGH).counts == {"critical": 1, "high": 1}


def test_an_exception_holds_to_the_end_of_its_last_day() -> None:
    def waiver(days: int, **changes: Any) -> Waiver:
        last = (TODAY + timedelta(days=days)).isoformat()
        return Waiver(**{"id": "CVE-1", "reason": "not reachable", "expires": last, **changes})

    assert judged(CRITICAL, waivers=[waiver(0)]).blocking == []
    ran_out = judged(CRITICAL, waivers=[waiver(-1)])
    assert (ran_out.blocking, ran_out.expired) == ([CRITICAL], ["CVE-1"])
    assert judged(CRITICAL, waivers=[waiver(1, service="web")]).blocking == [CRITICAL]
    assert judged(CRITICAL, waivers=[waiver(1, id="CVE-2")]).blocking == [CRITICAL]


def test_compared_with_what_runs_only_new_findings_block() -> None:
    older = Finding("CVE-1", "openssl 0.9", "critical")
    elsewhere = Finding("CVE-1", "libssl 1.0", "critical")
    assert judged(CRITICAL, live=[older]).blocking == []
    assert judged(CRITICAL, live=[older]).known == [CRITICAL]
    assert judged(CRITICAL, elsewhere, live=[older]).blocking == [elsewhere]
    assert judged(CRITICAL, live=[]).blocking == [CRITICAL]


# The policy


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scan": "maybe"}, "app_image_policy.scan: use none, block or compare"),
        ({"severity": "unknown"}, "severity: use one of low"),
        ({"signature_required": True}, "public_keys: name at least one key"),
        ({"public_keys": ["ssh-ed25519 AAAA"]}, r"public_keys\[0\]: is no public key"),
        ({"scan_command": ["trivy", "image"]}, "scan_command: write {image} once"),
        ({"sbom_command": ["syft"]}, "sbom_command: write {image} once"),
        ({"exceptions": [Waiver("CVE-1", "no", "2026-01-01")]}, r"exceptions\[0\].reason: say why"),
        ({"exceptions": [Waiver("CVE-1", "not reachable", "soon")]}, r"exceptions\[0\].expires: write the last day"),
        ({"exceptions": [Waiver("", "not reachable", "2026-01-01")]}, r"exceptions\[0\].id"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SwitchyardError, match=says) as error:
        policy.check(ImagePolicy(**changes))
    assert error.value.code is Exit.USAGE


def test_an_override_needs_a_reason() -> None:
    with pytest.raises(SwitchyardError, match="image_override: say why"):
        policy.check(ImagePolicy(), "x")
    policy.check(ImagePolicy(), "scanner is down, OPS-12")


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("ghcr.io/acme/api", True),
        ("ghcr.io/acme", True),
        ("ghcr.io/acme-evil/api", False),
        ("ghcr.io.evil.test/acme/api", False),
        ("library/nginx", True),
        ("nginx", True),
        ("other/nginx", False),
        ("localhost/acme/api", False),
    ],
)
def test_registries_are_compared_by_whole_parts(image: str, allowed: bool) -> None:
    assert policy.is_allowed(image, ["ghcr.io/acme", "docker.io/library/"]) is allowed
    assert policy.is_allowed(image, [])


# Scanners, run for real


@pytest.fixture
def script(tmp_path: Path) -> Any:
    def write(text: str, **changes: Any) -> ImagePolicy:
        path = tmp_path / "scan"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        settings = {"scan_command": [str(path), "{image}"], "sbom_command": [str(path), "{image}"]}
        return ImagePolicy(scan="block", **(settings | changes))

    return write


def test_a_scanner_is_asked_about_the_digest(script: Any) -> None:
    text = json.dumps(trivy(DIGEST, ("CVE-1", "openssl", "LOW")))
    asked = script(f"test \"$1\" = 'registry.test/shop/api@{DIGEST}' && cat <<'X'\n{text}\nX")
    assert [f.id for f in scanner.findings(asked, f"registry.test/shop/api@{DIGEST}")] == ["CVE-1"]


@pytest.mark.parametrize(
    ("text", "changes", "says"),
    [
        ("exit 3", {}, "failed with exit code 3"),
        ("echo 'FATAL no database' >&2; exit 1", {}, "exit code 1 .*no database"),
        ("true", {}, "printed nothing"),
        ("echo '{'", {}, "no JSON"),
        ("printf '\\377\\376'", {}, "no JSON"),
        # A child that goes on holding the pipes is ended with it.
        ("sleep 600 & sleep 600", {"scan_timeout": 1.0}, "did not finish in time"),
        ("true", {"scan_command": ["/nowhere/trivy", "{image}"]}, "not on this host"),
    ],
)
def test_a_scanner_that_does_not_work_lets_nothing_pass(
    script: Any, text: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(Refused, match=says):
        scanner.findings(script(text, **changes), f"registry.test/shop/api@{DIGEST}")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('{"bomFormat": "CycloneDX", "components": []}', True),
        ('{"spdxVersion": "SPDX-2.3"}', True),
        ("{}", False),
        ("[]", False),
        ("", False),
    ],
)
def test_a_bill_of_materials_is_one_or_is_refused(script: Any, text: str, good: bool) -> None:
    asked = script(f"echo '{text}'")
    if good:
        assert scanner.bill_of_materials(asked, f"x@{DIGEST}").strip() == text
    else:
        with pytest.raises(Refused, match="neither CycloneDX nor SPDX"):
            scanner.bill_of_materials(asked, f"x@{DIGEST}")


# Signatures


def claim(of: str) -> str:
    return json.dumps([{"critical": {"image": {"docker-manifest-digest": of}}}])


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([Completed(0, claim(DIGEST), "")], ""),
        ([Completed(12, "", "no matching signatures"), Completed(0, claim(DIGEST), "")], ""),
        ([Completed(10, "", "no signatures found")], "is not signed: sign it"),
        ([Completed(12, "", ""), Completed(12, "", "")], "signed, but by none of the keys"),
        ([Completed(0, claim(digest("other")), ""), Completed(0, "[]", "")], "signed, but by none of the keys"),
        ([Completed(0, "garbage", ""), Completed(0, "", "")], "signed, but by none of the keys"),
        ([Completed(127, "", "cosign: not found")], "cosign is not on this host"),
        ([Completed(1, "", "dial tcp: connection refused")] * 3, "cannot be read: dial tcp: connection refused"),
    ],
)
def test_cosigns_answers_are_understood(monkeypatch: pytest.MonkeyPatch, answers: list[Completed], says: str) -> None:
    queue = list(answers)
    monkeypatch.setattr(signature, "query", lambda *_, **__: queue.pop(0))
    monkeypatch.setattr("switchyard.trust.signature.time.sleep", lambda _: None)
    if says:
        with pytest.raises(Refused, match=says):
            signature.verify(f"registry.test/shop/api@{DIGEST}", [KEY, KEY], plain_http=False)
    else:
        found = signature.verify(f"registry.test/shop/api@{DIGEST}", [KEY, KEY], plain_http=False)
        assert found == policy.key_id(KEY)
    assert queue == []


# The gate, in preflight


@pytest.fixture
def reports(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What the scanner will say, by reference; an image that is not named here is clean."""
    known: dict[str, dict[str, Any]] = {}
    del world

    def run(argv: list[str], **_: Any) -> Completed:
        reference = argv[-1]
        of = reference.rpartition("@")[2]
        return Completed(0, json.dumps(known.get(reference, trivy(of))), "")

    monkeypatch.setattr(scanner, "run", run)
    monkeypatch.setattr(preflight, "check_space", lambda *_: None)
    monkeypatch.setattr(preflight, "check_memory", lambda *_: None)
    monkeypatch.setattr(preflight, "check_ports", lambda *_: None)
    return known


def asked(**changes: Any) -> Any:
    """A request for 2.0.0 of one service, with this policy."""
    override = changes.pop("image_override", "")
    image = changes.pop("image", "registry.test/shop/api")
    return make_request(
        version="2.0.0",
        services={"api": service(tag="2.0.0", image=image)},
        image_policy={"scan_command": SCANNER, **changes},
        image_override=override,
    )


IMAGE = f"registry.test/shop/api@{digest('registry.test/shop/api:2.0.0')}"
SICK = trivy(IMAGE.rpartition("@")[2], ("CVE-1", "openssl", "CRITICAL"))


def refusal(world: World, request: Any) -> str:
    before = sorted(world.paths.releases.glob("*/*"))
    with pytest.raises(SwitchyardError) as error:
        phases.prepare(world.begun(), request)
    assert error.value.code is Exit.PREFLIGHT
    assert sorted(world.paths.releases.glob("*/*")) == before
    return error.value.message


@pytest.mark.usefixtures("reports")
def test_without_a_policy_nothing_is_asked_and_nothing_is_kept(world: World) -> None:
    made = phases.prepare(world.begun(), asked())
    assert made is not None
    assert sorted(path.name for path in made.directory.iterdir()) == ["compose.yml", "release.json"]


def test_a_critical_finding_stops_the_release_before_it_exists(world: World, reports: dict[str, Any]) -> None:
    reports[IMAGE] = SICK
    text = refusal(world, asked(scan="block"))
    assert text.startswith("registry.test/shop/api:2.0.0 has 1 finding of severity critical: CVE-1 in openssl 1.0-1")
    assert "app_image_policy.exceptions" in text


def test_what_was_checked_is_kept_with_the_record(world: World, reports: dict[str, Any]) -> None:
    reports[IMAGE] = SICK
    last = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    waiver = {"id": "CVE-1", "reason": "not reachable from outside", "expires": last}
    made = phases.prepare(world.begun(), asked(scan="block", exceptions=[waiver]))
    assert made is not None
    kept = json.loads((made.directory / "trust.json").read_text())
    assert kept["services"]["api"]["image"] == IMAGE
    assert kept["services"]["api"]["scan"]["waived"] == [
        f"CVE-1 in openssl 1.0-1, no fix yet until {last}: not reachable from outside"
    ]
    assert kept["override"] is None


def test_only_new_findings_stop_a_release_that_is_compared(world: World, reports: dict[str, Any]) -> None:
    live = world.release(1, "blue", services={"api": service(tag="1.0.0")})
    old = live.pinned("api")
    reports[IMAGE] = SICK
    reports[old] = trivy(old.rpartition("@")[2], ("CVE-1", "openssl", "CRITICAL"))
    made = phases.prepare(world.begun(), asked(scan="compare"))
    assert made is not None
    del reports[old]
    world.ledger()
    (made.directory / "release.json").unlink()
    assert "that the live release does not have" in refusal(world, asked(scan="compare"))
    # Nothing can be compared with a live release that cannot be scanned.
    reports[old] = {}
    assert "cannot be relied on" in refusal(world, asked(scan="compare"))


@pytest.mark.usefixtures("reports")
def test_an_image_from_elsewhere_is_refused(world: World) -> None:
    text = refusal(world, asked(registries=["ghcr.io/acme"]))
    assert text.startswith("registry.test/shop/api is in none of the allowed registries (ghcr.io/acme;")


@pytest.mark.usefixtures("reports")
def test_a_tag_that_moved_is_refused(world: World) -> None:
    world.record(7, services={"api": service(tag="2.0.0")})
    text = refusal(world, asked())
    assert text.startswith("registry.test/shop/api:2.0.0 has moved: it is sha256:")
    assert "in release 0007-7.0.0" in text
    assert phases.prepare(world.begun(), asked(immutable_tags=False)) is not None


def test_an_override_is_in_the_ledger_with_its_reason(world: World, reports: dict[str, Any]) -> None:
    reports[IMAGE] = SICK
    op = world.begun()
    made = phases.prepare(op, asked(scan="block", image_override="hotfix for OPS-12, fixed base follows"))
    assert made is not None
    (event,) = [event for event in world.ledger().events if event["event"] == "override"]
    assert (event["who"], event["reason"]) == ("tester", "hotfix for OPS-12, fixed base follows")
    assert "CVE-1" in event["refused"][0]
    assert json.loads((made.directory / "trust.json").read_text())["override"]["refused"] == event["refused"]
    news = world.news()[-1]
    assert (news["kind"], news["severity"]) == ("deploy.override", "warning")


@pytest.mark.usefixtures("reports")
def test_a_policy_is_no_part_of_what_a_release_is(world: World) -> None:
    """A stricter policy does not make a new release of what already runs."""
    made = phases.prepare(world.begun(), asked())
    other = phases.prepare(world.begun(), asked(scan="block", image_override="not needed at all"))
    assert made is not None and other is not None
    assert made.config_hash == other.config_hash
