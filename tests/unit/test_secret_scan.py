"""The scan for secrets finds what is planted, lets pass what is allowed with a reason, and nothing else.

The canaries are put together here, so that this file has none.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import string
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "ci" / "secret_scan.py"


def noise(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """Text without a pattern, the same in each run."""
    digest = hashlib.sha512(b"canary").digest() * 3
    return "".join(alphabet[byte % len(alphabet)] for byte in digest[:length])


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


UPPER = string.ascii_uppercase + string.digits[2:8]
CANARIES = {
    "aws": ("deploy.sh", "export AWS_ACCESS_KEY_ID=" + "AKIA" + noise(16, UPPER)),
    "github": ("ci.yml", "token: " + "ghp_" + noise(36)),
    "slack": ("notify.py", "URL = 'https://hooks.slack.com/" + "services/T0A1B2C3D/B0A1B2C3D/" + noise(24) + "'"),
    "stripe": ("pay.py", "KEY = '" + "sk_live_" + noise(24) + "'"),
    "pypi": ("publish.sh", "pypi-" + "AgEIcHlwaS5vcmc" + noise(70)),
    "jwt": ("token.txt", ".".join((encoded('{"alg":"HS256"}'), encoded('{"sub":"42","admin":true}'), noise(43)))),
    "ssh key": ("id_ed25519", "-----BEGIN OPENSSH " + "PRIVATE KEY-----"),
    "tls key": ("tls.key", "-----BEGIN RSA " + "PRIVATE KEY-----"),
    "cosign key": ("cosign.key", "-----BEGIN ENCRYPTED SIGSTORE " + "PRIVATE KEY-----"),
    "age key": ("age.txt", "AGE-SECRET-KEY-1" + noise(58, string.ascii_uppercase + string.digits)),
    "password": ("settings.yml", "database_password: " + '"' + noise(20) + '"'),
    "url": ("app.env", "DATABASE_URL=postgresql://app:" + noise(20) + "@db/app"),
    "vault": ("vault.yml", "vault_postgres_app_" + "password: " + "short-one"),
    "docker": ("config.json", '{"auths": {"r.test": {"auth": "' + encoded(noise(30)) + '"}}}'),
    "npm": (".npmrc", "//registry.npmjs.org/:_authToken=" + "npm_" + noise(36)),
}  # fmt: skip


@pytest.fixture(scope="module")
def scanner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("secret_scan", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["secret_scan"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CANARIES)
def test_a_canary_is_found(scanner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    file, text = CANARIES[name]
    (tmp_path / file).write_text(f"# some file\n{text}\n")
    monkeypatch.chdir(tmp_path)
    found = scanner._scan_some([file])
    assert [one.line for one in found][:1] == [2], found
    problems = "\n".join(scanner.judge(found, [], whole=True))
    assert f"{file}:2: " in problems
    assert noise(16) not in problems, "the scan shows the secret itself"


@pytest.mark.parametrize("name", ["github", "vault", "ssh key"])
def test_a_commit_with_a_canary_is_stopped(tmp_path: Path, name: str) -> None:
    """As the hook and CI run it: on everything that Git knows, and on the named files alone."""
    file, text = CANARIES[name]
    (tmp_path / "README.md").write_text("# Nothing secret\n")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    assert subprocess.run([sys.executable, SCRIPT], cwd=tmp_path, check=False).returncode == 0
    (tmp_path / file).write_text(text + "\n")
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    for words in ([], [file]):
        done = subprocess.run(
            [sys.executable, SCRIPT, *words], cwd=tmp_path, check=False, capture_output=True, text=True
        )
        assert done.returncode == 1 and f"{file}:1: " in done.stdout, done
    assert subprocess.run([sys.executable, SCRIPT, "README.md"], cwd=tmp_path, check=False).returncode == 0


def test_a_key_that_has_its_own_name_as_its_value_names_a_secret(scanner: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "app.yml"
    file.write_text("secret_env:\n  JWT_SECRET_KEY: JWT_SECRET_KEY\n")
    with scanner.default_settings():
        assert scanner.scan(str(file)) == []
        file.write_text("secret_env:\n  JWT_SECRET_KEY: JWT_SECRET_KEY_2\n  API_SECRET: JWT_SECRET_KEY\n")
        assert [found.line for found in scanner.scan(str(file))] == [2, 3]


def test_what_is_allowed_has_a_reason_and_still_is_there(scanner: ModuleType) -> None:
    found = [scanner.Found("a.py", 3, "Basic Auth Credentials", "0123")]
    entry = {"file": "a.py", "print": "0123", "reason": "an example in a document"}
    assert list(scanner.judge(found, [entry], whole=True)) == []
    assert "has no reason" in "".join(scanner.judge(found, [entry | {"reason": "ok"}], whole=True))
    assert "remove the entry" in "".join(scanner.judge([], [entry], whole=True))
    assert list(scanner.judge([], [entry], whole=False)) == []
    assert "b.py:3" in "".join(scanner.judge([scanner.Found("b.py", 3, "x", "0123")], [entry], whole=False))
