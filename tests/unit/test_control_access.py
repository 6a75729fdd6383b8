"""Keys of CI systems: one line each, which can do one thing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from switchyard.control import access
from switchyard.errors import SwitchyardError

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLE"


def key(**changes: Any) -> dict[str, Any]:
    return {"name": "hub", "key": f"{PUBLIC} ci@example.com", **changes}


def test_a_key_is_bound_to_its_gate_its_addresses_and_its_day() -> None:
    text = access.lines([key(**{"from": ["192.0.2.0/24", "!192.0.2.7"], "expires": "2027-03-31"})], "shop-test")
    assert text.splitlines()[1:] == [
        'restrict,command="/usr/bin/sudo -n /usr/local/sbin/switchyard gate shop-test hub",'
        f'from="192.0.2.0/24,!192.0.2.7",expiry-time="20270331" {PUBLIC} hub'
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "a b"}, "name: use lower-case"),
        ({"name": "x,root"}, "name: use lower-case"),
        ({"key": f'command="sh" {PUBLIC}'}, "one public key without options"),
        ({"key": f"{PUBLIC}\nssh-ed25519 AAAA"}, "one public key without options"),
        ({"key": "-----BEGIN " + "OPENSSH PRIVATE KEY-----"}, "one public key without options"),
        ({"from": ['"', ]}, "is no address or pattern"),
        ({"from": ["10.0.0.1,*"]}, "is no address or pattern"),
        ({"expires": "tomorrow"}, "is no day"),
    ],
)  # fmt: skip
def test_what_could_widen_a_key_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SwitchyardError, match=sentence):
        access.lines([key(**changes)], "shop-test")


def test_names_are_unique_and_no_key_opens_a_shell_as_well() -> None:
    with pytest.raises(SwitchyardError, match="two keys are named 'hub'"):
        access.lines([key(), key()], "shop-test")
    access.check([key()], ["ssh-ed25519 AAAAother me"])


@pytest.mark.parametrize(
    "entry", [PUBLIC, f"{PUBLIC} you@example.com", f'from="192.0.2.1",command="a b" {PUBLIC} me\n']
)
def test_a_line_of_authorized_keys_is_one(entry: str) -> None:
    access.check_shell_keys([PUBLIC, entry])


@pytest.mark.parametrize(
    "entry", ["~/.ssh/id_ed25519.pub", "ssh-ed25519", "ssh-ed25519 !", "AAAAC3Nz", f"{PUBLIC[:30]}\n{PUBLIC[30:]}", ""]
)
def test_what_is_none_is_named_before_it_replaces_keys_that_work(entry: str) -> None:
    with pytest.raises(SwitchyardError, match=r"host_deploy_authorized_keys\[1\]: give one public key"):
        access.check_shell_keys([PUBLIC, entry])
    with pytest.raises(SwitchyardError, match="opens a shell"):
        access.check([key()], [f"{PUBLIC} me@example.com"])


def test_a_fingerprint_is_what_ssh_prints(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    public = (tmp_path / "key.pub").read_text()
    told = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / "key"], check=True, capture_output=True, text=True)
    assert access.fingerprints([key(key=public)]) == {"hub": told.stdout.split()[1]}
    with pytest.raises(SwitchyardError, match="one public key"):
        access.fingerprints([key(key="ssh-ed25519 !")])
