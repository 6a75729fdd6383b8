"""A host whose environment asks for signatures and scans, with real cosign and a scanner that says what a test wants.

Trivy cannot be had here, nor its database. What stands in for it keeps its contract: the words that our default command
gives it, and JSON in the form of its schema.
"""

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.bed import Bed, Registry, images
from tests.bed import engine as outer
from tests.bed.registry import ACCEPT
from tests.lab import VERSIONS, Lab
from tests.project import Project

FINDINGS = "/root/findings.json"
_TRIVY = f"""#!/usr/bin/python3
import json, sys
words = sys.argv[1:]
image = words[-1]
digest = image.rpartition("@")[2]
if "cyclonedx" in words:
    print(json.dumps({{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{{"name": image}}]}}))
    sys.exit()
wanted = ["image", "--quiet", "--format", "json", "--scanners", "vuln", "--image-src", "remote",
          "--ignorefile", "/dev/null", "--exit-code", "0"]
assert words[:-1] == wanted, words
found = json.load(open({FINDINGS!r})).get(digest, [])
entries = [{{"VulnerabilityID": i, "PkgName": p, "InstalledVersion": "1.0", "Severity": s}} for i, p, s in found]
print(json.dumps({{
    "SchemaVersion": 2, "ArtifactName": image, "ArtifactType": "container_image",
    "Metadata": {{"OS": {{"Family": "debian", "Name": "13.1"}}, "RepoDigests": [image]}},
    "Results": [{{"Target": "debian 13.1", "Class": "os-pkgs", "Type": "debian", "Vulnerabilities": entries}}],
}}))
"""

# Between the host and a registry, on the host's loopback, where Docker speaks plain HTTP of itself.
_BETWEEN = """
import socket, sys, threading, time
port, host, target, delay = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
def pump(source, sink):
    try:
        while data := source.recv(65536):
            time.sleep(delay)
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
server = socket.create_server(("127.0.0.1", port))
open("/run/test-between", "w").close()
while True:
    client, _ = server.accept()
    upstream = socket.create_connection((host, target))
    for pair in ((client, upstream), (upstream, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


@contextlib.contextmanager
def between(lab: Lab, registry: Registry, *, delay: float = 0.0, port: int = 5999) -> Iterator[str]:
    """A way to a registry that waits `delay` seconds before each piece; yields its address on the host."""
    name = f"test-between-{time.monotonic_ns()}"
    run = ["systemd-run", "--quiet", "--collect", f"--unit={name}", "--property=RuntimeMaxSec=600"]
    words = [str(port), registry.ip, registry.address.rpartition(":")[2], str(delay)]
    lab.host.exec(["rm", "-f", "/run/test-between"])
    lab.host.exec([*run, "/usr/bin/python3", "-c", _BETWEEN, *words])
    lab.host.exec(["sh", "-c", "for i in $(seq 600); do test -e /run/test-between && exit 0; sleep 0.1; done; exit 1"])
    try:
        yield f"127.0.0.1:{port}"
    finally:
        lab.host.exec(["systemctl", "stop", name], check=False)


@dataclass
class Trusted:
    """The lab, its policy, and what a builder's machine would do: build, push, sign."""

    lab: Lab
    keys: dict[str, str] = field(default_factory=dict)
    """Public keys in PEM, by name."""

    @classmethod
    def build(cls, project: Project, bed: Bed) -> "Trusted":
        """Provision a host that wants signatures by the key `good`, and have its first release live."""
        path = project.folder / "inventories" / "group_vars" / "env_local" / "zz_trust.yml"
        # Any key will do to have cosign installed; the real ones are made with it.
        policy = {"signature_required": True, "public_keys": [_some_key()], "scan": "block"}
        path.write_text(yaml.safe_dump({"app_image_policy": policy}))
        trusted = cls(Lab.build(project, bed))
        host = trusted.lab.host
        for name in ("good", "other"):
            words = ["cosign", "generate-key-pair", "--output-key-prefix", f"/root/{name}"]
            host.exec(["env", "COSIGN_PASSWORD=", *words])
            trusted.keys[name] = host.exec(["cat", f"/root/{name}.pub"]).stdout
        path.write_text(yaml.safe_dump({"app_image_policy": trusted.policy()}))
        host.put("/usr/local/bin/trivy", _TRIVY, 0o755)
        trusted.finds({})
        trusted.sign(VERSIONS[0])
        result = trusted.deploy(VERSIONS[0])
        assert result["code"] == 0, result
        return trusted

    def image(self, tag: str, *, layer: bool = False) -> str:
        """Push a new image under a tag, with a new layer if wanted; returns its digest."""
        local = f"{self.lab.registry.local}/trivial:{tag}"
        text = f"FROM {images.trivial(VERSIONS[0])}\nLABEL test={tag}\n"
        text += f"RUN echo {tag} > /tmp/{tag}\n" if layer else ""
        outer.cli("build", "--quiet", "--tag", local, "-", stdin=text)
        try:
            return self.lab.registry.push(local, "trivial", tag).digest
        finally:
            outer.cli("image", "rm", local, check=False)

    def layers(self, tag: str) -> list[str]:
        """The digests of an image's layers, the last one on top."""
        url = f"http://{self.lab.registry.local}/v2/trivial/manifests/{tag}"
        request = urllib.request.Request(url, headers={"Accept": ACCEPT})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return [layer["digest"] for layer in json.load(answer)["layers"]]

    def digest(self, tag: str) -> str:
        """What a tag points to now."""
        found = self.lab.registry.digest("trivial", tag)
        assert found, f"there is no trivial:{tag}"
        return found

    def sign(self, tag: str, key: str = "good") -> None:
        """Sign what a tag points to, as a pipeline does after its push: offline, with a key pair."""
        reference = f"{self.lab.registry.address}/trivial@{self.digest(tag)}"
        words = ["cosign", "sign", "--key", f"/root/{key}.key", "--tlog-upload=false", "--yes", "--allow-http-registry"]
        self.lab.host.exec(["env", "COSIGN_PASSWORD=", *words, reference])

    def finds(self, findings: dict[str, list[tuple[str, str, str]]]) -> None:
        """Choose what the scanner finds, by tag: id, package and severity."""
        by_digest = {self.digest(tag): found for tag, found in findings.items()}
        self.lab.host.put(FINDINGS, json.dumps(by_digest))

    def policy(self, **changes: Any) -> dict[str, Any]:
        """The environment's policy with some keys changed."""
        return {"signature_required": True, "public_keys": [self.keys["good"]], "scan": "block"} | changes

    def deploy(self, tag: str, *, override: str = "", service: dict[str, Any] | None = None, **policy: Any) -> Any:
        """Deploy an image by its tag under the policy; returns the engine's result."""
        spec = self.lab.request(VERSIONS[0])["services"]["api"] | {"tag": tag} | (service or {})
        return self.lab.deploy(
            tag,
            services={"api": spec},
            migration=None,
            image_policy=self.policy(**policy),
            image_override=override,
        )

    def evidence(self, release: str) -> dict[str, Any]:
        """What the record of a release says was checked."""
        path = Path("/var/lib/switchyard/trivial-local/releases") / release / "trust.json"
        found: dict[str, Any] = json.loads(self.lab.host.exec(["cat", str(path)]).stdout)
        return found


def _some_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
