"""Images that can be trusted: what is refused, with which sentence, and that users never notice.

Signatures are cosign's own, made and verified without any network but the registry's.
"""

import base64
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from tests.bed import Bed, images
from tests.bed import engine as outer
from tests.faults.disturb import chosen, live, registry_gone, users
from tests.faults.invariants import check
from tests.lab import APP, VERSIONS, Lab
from tests.load import LoadProcess
from tests.project import Project
from tests.trusted import Trusted, between

OLD = VERSIONS[0]


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trusted]:
    with Bed.for_tests("trust") as bed:
        yield Trusted.build(Project(tmp_path_factory.mktemp("project")), bed)


@pytest.fixture(scope="module", autouse=True)
def served(trusted: Trusted) -> Iterator[LoadProcess]:
    """Users at work during all of it; nobody notices anything."""
    with users(trusted.lab) as load:
        yield load


def refused(trusted: Trusted, result: dict[str, Any], *says: str) -> None:
    """It ended in preflight, with one sentence, and the old release serves."""
    said = str(result.get("message") or result.get("error"))
    assert result["code"] == 4, result
    for words in says:
        assert re.search(words, said), f"{words!r} is not in: {said}"
    assert said.endswith(".") and "\n" not in said and "Traceback" not in str(result), said
    assert len(said) < 500, said
    assert live(trusted.lab) == OLD
    check(trusted.lab, said)


@dataclass(frozen=True)
class Case:
    """An image or a policy that must not let a release through."""

    name: str
    says: str
    policy: dict[str, Any] = field(default_factory=dict)
    signed_by: str = "good"
    findings: list[tuple[str, str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        return self.name


HIGH, CRITICAL = ("CVE-2026-1", "zlib", "HIGH"), ("CVE-2026-2", "openssl", "CRITICAL")
HANGS = ["sh", "-c", "sleep 300 & sleep 300", "{image}"]
CASES = [
    Case("unsigned", "trivial@sha256:[0-9a-f]{64} is not signed: sign it where it is built", signed_by=""),
    Case("other-key", "is signed, but by none of the keys in app_image_policy.public_keys", signed_by="other"),
    Case("critical", "has 1 finding of severity critical: CVE-2026-2 in openssl", findings=[HIGH, CRITICAL]),
]
MORE = [
    Case("elsewhere", "is in none of the allowed registries", {"registries": ["ghcr.io/acme"]}),
    Case("high", "has 2 findings of severity high or worse", {"severity": "high"}, findings=[HIGH, CRITICAL]),
    Case("no-scanner", "trivvy is not on this host", {"scan_command": ["trivvy", "{image}"]}),
    Case("broken-scanner", "failed with exit code 1", {"scan_command": ["false", "{image}"]}),
    Case("garbled-scanner", "what it printed is no JSON", {"scan_command": ["echo", "{image}"]}),
    Case("empty-scanner", "it printed nothing", {"scan_command": ["true", "{image}"]}),
    Case("hanging-scanner", "did not finish in time", {"scan_command": HANGS, "scan_timeout": 1.0}),
    Case("no-sbom", "neither CycloneDX nor SPDX", {"sbom_command": ["echo", "{image}"]}),
]


@pytest.mark.parametrize("case", chosen(CASES, MORE), ids=str)
def test_it_is_refused(trusted: Trusted, case: Case) -> None:
    trusted.image(case.name)
    if case.signed_by:
        trusted.sign(case.name, case.signed_by)
    trusted.finds({case.name: case.findings})
    refused(trusted, trusted.deploy(case.name, **case.policy), case.says)


@pytest.mark.parametrize("tag", chosen([], ["damaged"]))
def test_a_damaged_layer_is_named_and_nothing_of_it_runs(trusted: Trusted, tag: str) -> None:
    trusted.image(tag, layer=True)
    trusted.sign(tag)
    layer = trusted.layers(tag)[-1].removeprefix("sha256:")
    blob = f"/var/lib/registry/docker/registry/v2/blobs/sha256/{layer[:2]}/{layer}/data"
    script = f"printf X | dd of={blob} bs=1 seek=40 conv=notrunc"
    done = outer.api().containers.get(trusted.lab.registry.container).exec_run(["sh", "-c", script], user="0")
    assert done.exit_code == 0, done
    says = "cannot be pulled: a layer arrives damaged: it is broken in the registry or on the way"
    refused(trusted, trusted.deploy(tag), says)


def test_what_was_scanned_is_what_runs_though_the_tag_moves_meanwhile(trusted: Trusted) -> None:
    """The scanner itself moves the tag: no moment is worse. Then the tag is known to have moved."""
    scanned = trusted.image("moving")
    trusted.sign("moving")
    trusted.finds({})
    trusted.image("moved-to")
    registry = f"http://{trusted.lab.registry.address}/v2/trivial/manifests"
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    script = (
        f"curl -sf -H 'Accept: {kind}' {registry}/moved-to | "
        f"curl -sf -X PUT -H 'Content-Type: {kind}' --data-binary @- {registry}/moving >&2 && exec trivy image --quiet "
        "--format json --scanners vuln --image-src remote --ignorefile /dev/null --exit-code 0 $0"
    )
    result = trusted.deploy("moving", scan_command=["sh", "-c", script, "{image}"])
    try:
        assert result["code"] == 0, result
        assert trusted.digest("moving") != scanned
        assert trusted.lab.status()["live"]["digests"]["api"] == scanned
        kept = trusted.evidence(result["release"])
        assert kept["services"]["api"]["image"].endswith(scanned)
        assert kept["services"]["api"]["signed_by"].startswith("sha256:")
    finally:
        back_to_old(trusted.lab)
    trusted.sign("moving")
    refused(trusted, trusted.deploy("moving"), f"trivial:moving has moved: .* in release {result['release']}")


def back_to_old(lab: Lab) -> None:
    """Make the old version live again; a rollback, since that is quick."""
    lab.settle()
    if live(lab) != OLD:
        result = lab.rollback(OLD)
        assert result["code"] == 0, result


def test_a_rollback_asks_neither_registry_nor_scanner_nor_cosign(trusted: Trusted) -> None:
    """Warm and cold: the record names digests that passed, and content cannot change under its digest."""
    lab = trusted.lab
    trusted.sign(VERSIONS[1])
    result = trusted.deploy(VERSIONS[1], sbom_command=["trivy", "image", "--format", "cyclonedx", "{image}"])
    assert result["code"] == 0, result
    release = result["release"]
    folder = f"/var/lib/switchyard/{APP}/releases/{release}"
    assert "CycloneDX" in lab.host.exec(["cat", f"{folder}/sbom-api.json"]).stdout
    lab.settle()
    lab.host.exec(["sh", "-c", "mv /usr/bin/cosign /usr/bin/cosign.away; mv /usr/local/bin/trivy /root/"])
    try:
        with registry_gone(lab.registry, "stopped"):
            back_to_old(lab)
            lab.host.exec(
                ["sh", "-c", "docker ps -aq --filter label=switchyard.release=" + release + " | xargs docker rm -f"]
            )
            cold = lab.rollback(release)
            assert cold["code"] == 0, cold
            refusal = trusted.deploy("unsigned")
            assert refusal["code"] == 4 and "the registry cannot be reached" in refusal["message"], refusal
    finally:
        lab.host.exec(["sh", "-c", "mv /usr/bin/cosign.away /usr/bin/cosign; mv /root/trivy /usr/local/bin/"])
    back_to_old(lab)


def test_an_override_needs_a_reason_and_leaves_its_trace(trusted: Trusted) -> None:
    lab = trusted.lab
    began = time.time()
    done = lab.project.play("deploy", "-e", f"version={OLD}", "-e", "image_override=x")
    assert done.returncode == 2 and "image_override: say why" in done.stdout + done.stderr, done.stdout
    trusted.finds({"critical": [CRITICAL]})
    result = trusted.deploy("critical", override="OPS-12: hotfix, the fixed base follows tonight")
    try:
        assert result["code"] == 0, result
        ledger = lab.host.exec(["cat", f"/var/lib/switchyard/{APP}/ledger.jsonl"]).stdout
        assert '"override"' in ledger and "OPS-12: hotfix" in ledger and "CVE-2026-2" in ledger
        assert trusted.evidence(result["release"])["override"]["who"] == "lab"
        assert time.time() > began
    finally:
        back_to_old(lab)


@pytest.mark.parametrize("tag", chosen([], ["excepted"]))
def test_an_exception_lets_pass_and_what_runs_already_is_no_news(trusted: Trusted, tag: str) -> None:
    trusted.image(tag)
    trusted.sign(tag)
    trusted.finds({tag: [CRITICAL], OLD: [CRITICAL]})
    ran_out = {"id": CRITICAL[0], "reason": "not reachable from outside", "expires": "2020-01-01"}
    refused(trusted, trusted.deploy(tag, exceptions=[ran_out]), "the exception for CVE-2026-2 has run out")
    # What would be made live is only prepared: that takes a second instead of ten.
    request = trusted.lab.request(OLD) | {"image_policy": trusted.policy(scan="compare"), "migration": None}
    request["services"]["api"]["tag"] = tag
    done = trusted.lab.engine("preflight", "--json", stdin=json.dumps(request))
    assert done.returncode == 0, done.stdout
    request["image_policy"] = trusted.policy(exceptions=[ran_out | {"expires": "2999-12-31"}])
    done = trusted.lab.engine("preflight", "--json", stdin=json.dumps(request))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("delay", chosen([], [0.2]))
def test_a_slow_registry_is_waited_for(trusted: Trusted, delay: float) -> None:
    lab = trusted.lab
    trusted.image("slow")
    trusted.sign("slow")
    trusted.finds({})
    with between(lab, lab.registry, delay=delay) as address:
        result = trusted.deploy("slow", service={"image": f"{address}/trivial"})
    try:
        assert result["code"] == 0, result
    finally:
        back_to_old(lab)


@pytest.mark.parametrize("word", chosen([], ["right-7f3a-secret"]))
def test_a_login_is_kept_encrypted_and_serves_docker_cosign_and_the_engine(trusted: Trusted, word: str) -> None:
    lab = trusted.lab
    private = lab.bed.registry(login=("releases", word))
    private.push(images.trivial(OLD), "trivial", "private")
    role = lab.project.folder / "inventories" / "group_vars" / "env_local" / "zz_login.yml"
    with between(lab, private) as address:
        image = {"image": f"{address}/trivial"}
        refused(
            trusted,
            trusted.deploy("private", service=image),
            f"refuses this host's login: check docker_registry_logins for {address}",
        )
        logins = [{"registry": address, "username": "releases", "password": word}]
        role.write_text(yaml.safe_dump({"docker_registry_logins": logins}))
        try:
            for changes in (True, False):
                done = lab.project.play("provision", "--tags", "docker")
                assert done.returncode == 0, done.stdout
                assert (
                    " changed=0 " not in done.stdout.partition("PLAY RECAP")[2].partition("localhost")[0]
                ) is changes
            config = lab.host.exec(["cat", "/root/.docker/config.json"]).stdout
            encoded = base64.b64encode(f"releases:{word}".encode()).decode()
            assert address in config and word not in config and encoded not in config
            script = f"grep -rlF -e '{word}' -e '{encoded}' /root /etc /var/lib/switchyard /var/log"
            assert lab.host.exec(["sh", "-c", script], check=False).stdout == ""
            reference = f"{address}/trivial@{private.digest('trivial', 'private')}"
            sign = [
                "cosign",
                "sign",
                "--key",
                "/root/good.key",
                "--tlog-upload=false",
                "--yes",
                "--allow-http-registry",
            ]
            lab.host.exec(["env", "COSIGN_PASSWORD=", *sign, reference])
            result = trusted.deploy("private", service=image)
            assert result["code"] == 0, result
            assert word not in str(result)
        finally:
            role.unlink()
            back_to_old(lab)
