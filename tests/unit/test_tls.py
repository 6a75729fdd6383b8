"""Certificates: what may serve, what is kept in service, what is renewed when, and what is said about it."""

from __future__ import annotations

import datetime
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from switchyard.engine import announce, effects, layout
from switchyard.errors import SwitchyardError
from switchyard.tls import certificate, pairs, sources, store
from switchyard.tls.pairs import Pair
from switchyard.watch import measure
from switchyard.watch.limits import Limits
from tests.unit.engine_world import NAME, World, modules

CA = ec.generate_private_key(ec.SECP256R1())
HOST = "shop.test"
DIRECTORY = "https://acme.test/dir"


def made(*names: str, first: float = -1, last: float = 90, signer: str = "Authority", password: bytes = b"") -> Pair:
    """A pair from an authority, valid from `first` until `last`, in days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(name(names[0]))
        .issuer_name(name(signer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=first))
        .not_valid_after(now + datetime.timedelta(days=last))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(item) for item in names]), critical=False)
    )
    pem, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    signed = builder.sign(CA, hashes.SHA256()).public_bytes(pem).decode()
    return Pair(signed, key.private_bytes(pem, kind, lock).decode())


@pytest.fixture(autouse=True)
def acme(world: World, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The host's openssl works, and its certbot issues `issues` or fails with `says`."""
    server = SimpleNamespace(issues=made(HOST), says="", asked=0, served="")
    ordinary = world.docker.run

    def run(argv: Sequence[str], **options: Any) -> Any:
        if argv[0] == "openssl":
            return subprocess.run(argv, **options)  # noqa: PLW1510 - as the caller says
        if argv[0] != "certbot":
            return ordinary(argv, **options)
        server.asked += 1
        if server.says:
            return SimpleNamespace(returncode=1, stdout=server.says, stderr="")
        live = layout.ACME / str(NAME) / "config" / "live" / str(NAME)
        live.mkdir(parents=True, exist_ok=True)
        (live / "fullchain.pem").write_text(server.issues.certificate)
        (live / "privkey.pem").write_text(server.issues.key)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(effects, "subprocess", SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired))
    for module in modules():
        if module.__name__.startswith(("switchyard.tls", announce.__name__)) and "time" in vars(module):
            monkeypatch.setattr(module, "time", time)
    monkeypatch.setattr(store, "served", lambda _: server.served)
    # What an edge reads is asked in the tests of the edge; here none runs.
    world.docker.edge = False
    return server


def keep(world: World, mode: str, given: Pair | None = None, *, check: bool = False, **more: Any) -> bool:
    settings = {"mode": mode, "names": [HOST], "directory": DIRECTORY} | more
    return certificate.keep(NAME, settings, given or Pair("", ""), world.host, check=check)[0]


def serving() -> Pair:
    found = store.installed(NAME)
    assert found is not None
    return found.pair


def state() -> certificate.State:
    found = certificate.state_of(NAME)
    assert found is not None
    return found


def news() -> list[str]:
    return [json.loads(path.read_text())["kind"] for path in sorted(announce.SPOOL.glob("*.json"))]


# What may serve


def test_a_certificate_says_what_it_is() -> None:
    facts = pairs.read(made("Shop.test", "*.shop.test").certificate)
    assert facts.names == ("shop.test", "*.shop.test")
    assert "CN=Authority" in facts.issuer and not facts.self_signed
    assert round(facts.days) == 91 and 89 < facts.days_left <= 90
    assert facts.uncovered(["SHOP.test", "www.shop.test", "a.b.shop.test", "test"]) == ["a.b.shop.test", "test"]
    assert len(facts.fingerprint) == 64


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (Pair(made(HOST).certificate, made(HOST).key), "certificate and key do not belong together"),
        (made(HOST, first=-9, last=-2), "the certificate has expired on "),
        (made(HOST, first=1), r"is valid from .* on only; is this host's clock right\?"),
        (made(HOST, password=b"secret"), "without a passphrase"),
        (Pair("no certificate", "no key"), "the certificate cannot be read"),
        (Pair(made(HOST).certificate, "no key"), "the key cannot be read"),
    ],
    ids=["mismatched", "expired", "early", "encrypted", "garbage", "no key"],
)
def test_what_must_not_serve_is_refused_and_the_old_pair_stays(world: World, pair: Pair, words: str) -> None:
    old = made(HOST)
    keep(world, "files", old)
    with pytest.raises(SwitchyardError, match=rf"{words}.*The pair in service stays\."):
        keep(world, "files", pair)
    assert serving() == old and state().state == "valid"


def test_a_pair_never_prints_its_key() -> None:
    assert "PRIVATE" not in repr(made(HOST)) + str(made(HOST))


# Files


def test_a_given_pair_is_installed_once(world: World, acme: SimpleNamespace) -> None:
    pair = made(HOST)
    assert keep(world, "files", pair, check=True) and store.installed(NAME) is None
    assert keep(world, "files", pair)
    assert not keep(world, "files", pair) and not keep(world, "files", pair, check=True)
    directory = store.installed(NAME).directory  # type: ignore[union-attr]  # it was just installed
    assert (directory / "key.pem").stat().st_mode & 0o777 == 0o600
    assert acme.asked == 0


def test_the_pair_before_stays_on_the_host_and_older_ones_go(world: World) -> None:
    for _ in range(3):
        keep(world, "files", made(HOST))
    assert len(list((layout.EDGE_TLS / str(NAME)).iterdir())) == 2


def test_a_given_pair_is_not_renewed_and_its_end_is_told_in_time(world: World, acme: SimpleNamespace) -> None:
    keep(world, "files", made(HOST, last=20))
    assert certificate.renew(NAME, world.host) == (False, state())
    assert state().state == "expiring" and "put a new pair into the inventory" in state().message
    (finding,) = measure.certificates(NAME, Limits())
    assert finding.problem.startswith("its certificate is expiring: it ends on ") and acme.asked == 0


def test_a_pair_that_ends_while_it_serves_is_told_and_blocks_nothing(world: World) -> None:
    old = made(HOST, first=-9, last=-1)
    store.install(NAME, old, world.host)
    keep(world, "files", old)
    assert serving() == old and state().state == "expired"


# Self-signed


def test_a_self_signed_pair_is_made_and_made_again_for_other_names(world: World) -> None:
    assert keep(world, "self_signed", names=[HOST, "192.0.2.7"])
    assert not keep(world, "self_signed", names=[HOST, "192.0.2.7"])
    assert pairs.read(serving().certificate).names == (HOST, "192.0.2.7")
    assert (state().state, state().issuer) == ("valid", "itself")
    assert keep(world, "self_signed", names=["other.test"])
    assert pairs.read(serving().certificate).names == ("other.test",)


# ACME


def test_a_stand_in_serves_until_the_first_certificate_is_issued(world: World, acme: SimpleNamespace) -> None:
    keep(world, "acme")
    assert state().state == "stand-in"
    conf = layout.EDGE_LIVE / "certificates" / f"{NAME}.conf"
    assert '$switchyard_stand_in "yes"' in conf.read_text()
    assert certificate.renew(NAME, world.host, check=True)[0] and acme.asked == 0
    changed, now = certificate.renew(NAME, world.host)
    assert changed and (now.state, now.issuer) == ("valid", "Authority")
    assert serving() == acme.issues and '$switchyard_stand_in ""' in conf.read_text()
    assert not certificate.renew(NAME, world.host)[0] and acme.asked == 1
    assert not keep(world, "acme")


@pytest.mark.parametrize(
    ("pair", "renewed"),
    [
        (made(HOST, first=-59, last=31), False),
        (made(HOST, first=-61, last=29), True),
        (made(HOST, first=-3, last=3), False),
        (made(HOST, first=-5, last=2), True),
        (made("old.test"), True),
    ],
    ids=["early", "due", "short-lived, early", "short-lived, due", "other names"],
)
def test_what_is_due_is_renewed(world: World, acme: SimpleNamespace, pair: Pair, renewed: bool) -> None:
    acme.issues = pair
    keep(world, "acme")
    certificate.renew(NAME, world.host)
    acme.issues = made(HOST)
    assert certificate.renew(NAME, world.host)[0] is renewed
    assert serving() == (acme.issues if renewed else pair)


def test_a_renewal_that_is_refused_leaves_the_old_pair_and_says_why(world: World, acme: SimpleNamespace) -> None:
    old = acme.issues = made(HOST, first=-81, last=9)
    keep(world, "acme")
    certificate.renew(NAME, world.host)
    acme.says = "Saving debug log to x\n  Domain: shop.test\n  Type:   connection\n  Detail: Connection refused\n"
    with pytest.raises(SwitchyardError, match=r"shop\.test; connection; Connection refused\. The old pair stays"):
        certificate.renew(NAME, world.host)
    assert serving() == old and "Connection refused" in state().renewal
    assert "certificate.failed" in news()
    acme.says, acme.issues = "", made(HOST)
    certificate.renew(NAME, world.host)
    assert state().renewal == "" and serving() == acme.issues


def test_what_is_issued_is_judged_as_well(world: World, acme: SimpleNamespace) -> None:
    keep(world, "acme")
    before = serving()
    acme.issues = Pair(made(HOST).certificate, made(HOST).key)
    with pytest.raises(SwitchyardError, match="issued a pair that must not serve: certificate and key do not belong"):
        certificate.renew(NAME, world.host)
    assert serving() == before


def test_force_renews_what_is_not_due(world: World, acme: SimpleNamespace) -> None:
    keep(world, "acme")
    certificate.renew(NAME, world.host)
    acme.issues = made(HOST)
    assert certificate.renew(NAME, world.host, force=True)[0] and serving() == acme.issues


def test_another_authority_issues_what_the_one_before_had_issued(world: World, acme: SimpleNamespace) -> None:
    keep(world, "acme", directory="https://staging.test/dir")
    certificate.renew(NAME, world.host)
    old = acme.issues
    acme.issues, acme.says = made(HOST), "rateLimited"
    keep(world, "acme")
    assert serving() == old
    with pytest.raises(SwitchyardError, match="rateLimited"):
        certificate.renew(NAME, world.host)
    acme.says = ""
    assert certificate.renew(NAME, world.host, check=True)[0]
    assert certificate.renew(NAME, world.host)[0] and serving() == acme.issues
    assert not certificate.renew(NAME, world.host)[0] and acme.asked == 3


def test_an_authority_that_nobody_noted_is_the_one_of_today(world: World, acme: SimpleNamespace) -> None:
    store.install(NAME, made(HOST), world.host)
    keep(world, "acme")
    assert not certificate.renew(NAME, world.host)[0] and acme.asked == 0


@pytest.mark.parametrize(
    ("force", "directory", "names", "asked"),
    [
        (False, DIRECTORY, [HOST], 1),
        (True, DIRECTORY, [HOST], 2),
        (False, "https://other.test/dir", [HOST], 2),
        (False, DIRECTORY, [HOST, "www.shop.test"], 2),
    ],
    ids=["the same", "asked for", "another authority", "other names"],
)
def test_what_was_issued_and_not_installed_is_not_issued_again(
    world: World,
    acme: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    force: bool,
    directory: str,
    names: list[str],
    asked: int,
) -> None:
    keep(world, "acme")

    def refuse(*_: object, **__: object) -> bool:
        raise SwitchyardError("Nginx refuses it.")

    with monkeypatch.context() as patch:
        patch.setattr(store, "install", refuse)
        with pytest.raises(SwitchyardError, match="Nginx refuses it"):
            certificate.renew(NAME, world.host)
    first, acme.issues = acme.issues, made(*names)
    store.settings_file(NAME).write_text(json.dumps({"mode": "acme", "names": names, "directory": directory}))
    assert certificate.renew(NAME, world.host, force=force)[0]
    assert acme.asked == asked and serving() == (first if asked == 1 else acme.issues)


def test_a_pair_that_somebody_spoilt_comes_back_from_what_was_issued(world: World, acme: SimpleNamespace) -> None:
    keep(world, "acme")
    certificate.renew(NAME, world.host)
    (store.installed(NAME).directory / "key.pem").write_text(made(HOST).key)  # type: ignore[union-attr]
    assert state().state == "mismatched"
    assert keep(world, "acme") and serving() == acme.issues and acme.asked == 1


def test_a_pair_that_was_not_loaded_is_loaded(
    world: World, acme: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(world, "acme")
    certificate.renew(NAME, world.host)
    world.release(1, "blue")
    acme.served = "another"

    def reload() -> None:
        acme.served = pairs.read(serving().certificate).fingerprint

    monkeypatch.setattr(store, "reload", reload)
    assert state().state == "not loaded"
    assert certificate.renew(NAME, world.host)[1].state == "valid"


# What is said


def test_nothing_is_said_of_an_application_without_tls(world: World) -> None:
    assert certificate.state_of(NAME) is None
    with pytest.raises(SwitchyardError, match="serves no TLS"):
        certificate.renew(NAME, world.host)


def test_files_that_are_gone_are_missed(world: World) -> None:
    keep(world, "files", made(HOST))
    (store.installed(NAME).directory / "key.pem").unlink()  # type: ignore[union-attr]
    assert (state().state, state().message) == ("missing", "no certificate is installed: run provision.yml")


def test_names_that_are_not_covered_are_told(world: World) -> None:
    keep(world, "files", made(HOST), names=[HOST, "www.shop.test"])
    assert state().state == "wrong names" and "www.shop.test" in state().message
    assert certificate.describe(state())[0].startswith("files: wrong names, 90 days left (until ")


def test_it_becomes_graver_as_its_end_comes_near(world: World) -> None:
    told = []
    for days in (30, 20, 6, 2):
        store.install(NAME, made(HOST, last=days), world.host)
        keep(world, "files", serving())
        (finding,) = measure.certificates(NAME, Limits(certificate_days=25))
        told.append((finding.severity if finding.problem else "", finding.after))
    assert told == [("", 0.0), ("warning", 0.0), ("critical", 0.0), ("critical", 0.0)]


def test_what_belongs_to_an_application_without_tls_is_forgotten(world: World) -> None:
    keep(world, "files", made(HOST))
    assert store.known() == [NAME]
    assert store.forget(NAME) and not store.forget(NAME)
    assert store.known() == [] and store.installed(NAME) is None


def test_certbots_reason_is_its_own_words() -> None:
    assert sources.reason("Saving debug log\nAsk for help\nAccount is gone.\n") == "Account is gone."
    assert sources.reason("") == "certbot said nothing"


def test_the_settings_hold_no_secret(world: World) -> None:
    pair = made(HOST)
    keep(world, "files", pair)
    assert "PRIVATE" not in Path(store.settings_file(NAME)).read_text()
