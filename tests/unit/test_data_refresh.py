"""Production's data comes to staging only sanitised, only where it may, and never onto production itself."""

import json
from typing import Any

import pytest

from switchyard.control import refresh as control
from switchyard.data import personal, refresh, source
from switchyard.data.personal import Statement
from switchyard.errors import SwitchyardError
from switchyard.names import AppName

STAGING = AppName("shop", "staging")
KNOWN = ["public.users.email", "public.users.id", "crm.leads.phone"]
EMAIL = Statement("UPDATE users SET email = id || '@example.com'", ["users.email"])
PHONE = Statement("UPDATE crm.leads SET phone = ''", ["crm.leads.phone"])


def covered(
    tagged: list[str], listed: list[str], statements: list[Statement], *, nothing_personal: bool = False
) -> list[str]:
    return personal.require_covered(tagged, listed, statements, KNOWN, nothing_personal=nothing_personal)


def test_every_tagged_and_every_listed_column_has_to_be_covered() -> None:
    columns = covered(["public.users.email"], ["crm.leads.phone"], [EMAIL, PHONE])
    assert columns == ["crm.leads.phone", "public.users.email"]
    with pytest.raises(SwitchyardError, match=r"Nothing sanitises these personal columns: crm\.leads\.phone\. Add"):
        covered(["public.users.email"], ["crm.leads.phone"], [EMAIL])
    with pytest.raises(SwitchyardError, match=r"Nothing sanitises these personal columns: public\.users\.email\. Add"):
        covered(["public.users.email"], [], [PHONE])


def test_a_column_may_be_named_without_its_schema() -> None:
    assert covered(["public.users.email"], ["users.email"], [EMAIL]) == ["public.users.email"]
    # Another schema's column of the same name is another column.
    with pytest.raises(SwitchyardError, match=r"does not have: crm\.users\.email"):
        covered(["public.users.email"], [], [Statement("", ["crm.users.email"])])


def test_a_misspelt_column_is_refused_wherever_it_stands() -> None:
    with pytest.raises(SwitchyardError, match=r"does not have: public\.users\.emial"):
        covered([], ["users.emial"], [Statement("", ["users.emial"])])
    with pytest.raises(SwitchyardError, match=r"does not have: public\.user\.email"):
        covered(["public.users.email"], [], [EMAIL, Statement("", ["user.email"])])


def test_a_database_in_which_nothing_is_tagged_is_refused_unless_somebody_says_so() -> None:
    with pytest.raises(SwitchyardError, match="No column is tagged personal"):
        covered([], [], [EMAIL])
    assert covered([], [], [], nothing_personal=True) == []
    with pytest.raises(SwitchyardError, match="Nothing sanitises"):
        covered(["public.users.email"], [], [], nothing_personal=True)


S3 = {
    "name": "cloud",
    "type": "s3",
    "endpoint": "s3.example.com",
    "bucket": "b",
    "region": "r",
    "key": "writer-canary",
    "key_secret": "writer-canary",
    "reader": {"key": "reader", "key_secret": "reader-secret"},
}


def values(**more: Any) -> dict[str, Any]:
    theirs = {"hosts": ["production-1"], "repositories": [S3], "passphrase": "pass", "database": "shop"}
    return {
        "app": "shop",
        "environment": "staging",
        "host": "staging-1",
        "hosts": ["staging-1"],
        "known": ["local", "production", "staging"],
        "source": "production",
        "repository": "",
        "to": "",
        "allowed": ["production"],
        "sanitise": [{"sql": EMAIL.sql, "covers": EMAIL.covers}],
        "personal": ["users.email"],
        "nothing_personal": False,
        "theirs": theirs | more.pop("theirs", {}),
    } | more


def test_the_order_has_the_credentials_that_can_only_read_and_no_others() -> None:
    order = control.order(values())
    assert "writer-canary" not in json.dumps(order)
    assert order["secrets"] == {"passphrase": "pass", "key": "reader", "key_secret": "reader-secret"}
    parsed = source.parse(order, STAGING)
    assert (parsed.repository.name, parsed.host, str(parsed.target)) == ("cloud", "staging-1", "latest")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"source": "staging"}, "cannot be refreshed from itself"),
        ({"source": ""}, "one of local, production: no environment was named"),
        ({"source": "producton"}, "did you mean 'production'"),
        ({"allowed": []}, "does not let its data be replaced by production's"),
        ({"environment": "production", "source": "staging", "allowed": []}, "which production never has"),
        ({"hosts": ["production-1"]}, "production-1 is the database host of production itself"),
        ({"theirs": {"repositories": []}}, "production has no place away from its host"),
        ({"theirs": {"repositories": [{**S3, "reader": {}}]}}, "cloud.reader.key is not set"),
        ({"repository": "other"}, "no repository 'other'; there are: cloud"),
        ({"theirs": {"passphrase": ""}}, "cloud.passphrase is not set"),
        ({"to": "before-deploy=3"}, "goes to latest, a time or backup=LABEL"),
        ({"to": "yesterday"}, "is no restore target"),
        ({"personal": ["email"]}, "'email' is no column"),
        ({"personal": ["users.email", "users.phone"]}, "Nothing sanitises these personal columns: public.users.phone"),
        ({"sanitise": [{"sqll": "x"}]}, "sqll: unknown key, did you mean 'sql'"),
    ],
)
def test_what_may_not_be_is_refused_before_any_host_is_asked(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SwitchyardError) as caught:
        control.order(values(**change))
    assert sentence in caught.value.message


def stanza(*identifiers: int, code: int = 0) -> dict[str, Any]:
    entries = [
        {"id": n, "repo-key": 1, "system-id": own, "version": "17"} for n, own in enumerate(identifiers, start=1)
    ]
    return {"db": entries, "repo": [{"key": 1, "status": {"code": code, "message": "unable to connect"}}]}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (stanza(41, 42), r"is the very one that production backs up \(system identifier 42\)"),
        # The repository of before an upgrade still is production's.
        (stanza(42, 43), "is the very one"),
        (stanza(code=99), "production's repository cloud cannot be read: unable to connect"),
        (stanza(), "holds no backup at /switchyard"),
        ({}, "holds no backup"),
    ],
)
def test_a_target_that_is_production_by_its_identity_is_refused(found: dict[str, Any], sentence: str) -> None:
    order = source.parse(control.order(values()), STAGING)
    with pytest.raises(SwitchyardError, match=sentence):
        refresh.require_another(found, "42", str(STAGING), order)
    refresh.require_another(stanza(7), "42", str(STAGING), order)
