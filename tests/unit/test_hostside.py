"""What modules do on hosts, without a host: files that are placed whole, verifiers, and SQL."""

import base64
import hmac
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils import roles_sql, scram
from plugins.module_utils.placing import Placing


class Refused(Exception):
    """What `fail_json` raises here instead of ending the process."""


class FakeModule:
    """As much of an AnsibleModule as placing needs."""

    def __init__(self, *, check_mode: bool = False, accepts: bool = True) -> None:
        self.check_mode, self.accepts = check_mode, accepts
        self._diff = True

    def run_command(self, argv: list[str]) -> tuple[int, str, str]:
        return (0, "", "") if self.accepts else (1, "", f"{argv[-1]}: line 1 is wrong")

    def fail_json(self, msg: str, **_: Any) -> None:
        raise Refused(msg)


def owner(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"owner": str(status.st_uid), "group": str(status.st_gid)}


def test_a_file_is_placed_once(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.conf"
    for changed in (True, False):
        placing = Placing(FakeModule())
        placing.file(str(target), "text\n", 0o640, **owner(tmp_path))
        assert placing.changed is changed
    assert target.read_text() == "text\n"
    assert target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in target.parent.iterdir()] == ["b.conf"]


def test_check_mode_writes_nothing_and_shows_the_change(tmp_path: Path) -> None:
    placing = Placing(FakeModule(check_mode=True))
    placing.directory(str(tmp_path / "d"), **owner(tmp_path))
    placing.file(str(tmp_path / "f"), "new\n", **owner(tmp_path))
    placing.link(str(tmp_path / "l"), "target")
    assert list(tmp_path.iterdir()) == []
    assert placing.report()["paths"] == [str(tmp_path / name) for name in "dfl"]
    assert placing.report()["diff"][1]["after"] == "new\n"


def test_a_secret_is_not_in_the_diff(tmp_path: Path) -> None:
    placing = Placing(FakeModule())
    placing.file(str(tmp_path / "f"), "canary", secret=True, **owner(tmp_path))
    assert "canary" not in str(placing.report())


def test_a_refused_file_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "sudoers"
    target.write_text("old\n")
    placing = Placing(FakeModule(accepts=False))
    with pytest.raises(
        Refused, match=r"refuses the new .*/sudoers, so the old one stands: .*/sudoers: line 1 is wrong"
    ):
        placing.file(str(target), "new\n", validate="visudo -cf %s", **owner(tmp_path))
    assert target.read_text() == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["sudoers"]


def test_links_are_replaced_and_leftovers_pruned(tmp_path: Path) -> None:
    link = tmp_path / "command"
    link.symlink_to("old")
    for name in ("shop-1.key", "shop-2.key", "other-1.key"):
        (tmp_path / name).touch()
    placing = Placing(FakeModule())
    placing.link(str(link), "new")
    placing.prune(str(tmp_path), "shop-", ["shop-2.key"])
    assert str(link.readlink()) == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["command", "other-1.key", "shop-2.key"]


def test_an_unknown_owner_is_said_and_predicted(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no such user or group"):
        Placing(FakeModule()).file(str(tmp_path / "f"), "x", owner="nobody-of-that-name")
    (tmp_path / "g").touch()
    placing = Placing(FakeModule(check_mode=True))
    placing.file(str(tmp_path / "g"), "", owner="nobody-of-that-name")
    assert placing.changed


def test_a_verifier_is_the_one_of_the_standard() -> None:
    # The exchange of RFC 7677, section 3: the server's signature proves its key.
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={salt},i=4096,c=biws,r={nonce}"
    verifier = scram.verifier("pencil", base64.b64decode(salt), 4096)
    server_key = base64.b64decode(verifier.rpartition(":")[2])
    signature = hmac.digest(server_key, message.encode(), "sha256")
    assert base64.b64encode(signature).decode() == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_a_verifier_tells_its_password_and_nothing_else() -> None:
    verifier = scram.verifier("secret")
    assert scram.matches("secret", verifier)
    assert not scram.matches("Secret", verifier)
    assert not scram.matches("secret", "md5d41d8cd98f00b204e9800998ecf8427e")
    assert not scram.matches("secret", "")
    assert verifier != scram.verifier("secret")


def test_sql_quotes_what_it_is_given() -> None:
    assert roles_sql.identifier('a"b') == '"a""b"'
    assert roles_sql.literal("it's \\ fine") == r"E'it''s \\ fine'"


def test_the_application_can_never_change_the_schema() -> None:
    logins = {"shop_app_a": True, "shop_app_b": False}
    roles = roles_sql.Roles("shop", "shop_owner", "shop_app", "shop_migrate", logins, {"shop_app_a": "SCRAM"})
    text = "\n".join(roles.statements())
    assert 'ALTER ROLE "shop_owner" NOLOGIN NOSUPERUSER' in text
    assert 'ALTER ROLE "shop_app" NOLOGIN NOSUPERUSER' in text
    assert 'GRANT "shop_owner" TO "shop_migrate"' in text
    assert 'GRANT "shop_app" TO "shop_app_a"' in text
    assert "GRANT CREATE" not in text
    assert text.count("PASSWORD E'SCRAM'") == 1
    assert "ALTER ROLE \"shop_migrate\" SET role = E'shop_owner'" in text


def test_the_pooler_asks_for_the_application_alone_and_a_replica_may_only_stream() -> None:
    roles = roles_sql.Roles(
        "shop", "shop_owner", "shop_app", "shop_migrate", {"shop_app_a": True}, pooler="pool", replica="copy"
    )
    text = "\n".join(roles.statements())
    assert "r.rolname IN (E''shop_app_a'')" in text
    assert "REVOKE ALL ON FUNCTION switchyard.login(text) FROM PUBLIC" in text
    assert 'GRANT EXECUTE ON FUNCTION switchyard.login(text) TO "pool"' in text
    assert 'ALTER ROLE "copy" REPLICATION' in text
    assert text.count(" REPLICATION") == 1
    assert "E'pool'" in roles.state() and "E'copy'" in roles.state()


def test_a_login_without_a_password_is_closed_and_its_sessions_end() -> None:
    def roles(**logins: bool) -> roles_sql.Roles:
        return roles_sql.Roles("shop", "shop_owner", "shop_app", "shop_migrate", logins)

    text = "\n".join(roles(shop_app_a=True, shop_app_b=False).statements())
    assert 'ALTER ROLE "shop_app_a" LOGIN' in text
    assert 'ALTER ROLE "shop_app_b" NOLOGIN' in text
    assert text.count("PASSWORD NULL") == 3  # the owner, the rights, and the closed login
    assert "'shop_app_b'" in roles(shop_app_a=True, shop_app_b=False).farewell()[0]
    assert roles(shop_app_a=True, shop_app_b=True).farewell() == []
