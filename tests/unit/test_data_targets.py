"""From what somebody asks for to the backup it is restored from."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from switchyard.data import pgbackrest
from switchyard.data.pgbackrest import Kept, Target, parse_target
from switchyard.data.settings import Backup, Repository
from switchyard.data.targets import decide
from switchyard.engine.effects import Completed
from switchyard.errors import SwitchyardError

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def backup(*names: str) -> Backup:
    places = [Repository("local"), *(Repository(name, "sftp", host="h", user="u") for name in names)]
    return Backup("shop", "staging", "img", "shop", 999, "/data", "/data", places, "/backups")


def stanza(*made: tuple[str, datetime, int]) -> dict[str, Any]:
    """An answer of `info` with these backups: label, end, repository."""
    entries = [
        {
            "label": label,
            "type": "full",
            "timestamp": {"start": ended.timestamp() - 60, "stop": ended.timestamp()},
            "database": {"id": 1, "repo-key": repository},
            "info": {"size": 1000},
            "archive": {"start": "000000010000000000000005", "stop": "000000010000000000000005"},
            "error": False,
        }
        for label, ended, repository in made
    ]
    return {"backup": entries, "db": [{"id": 1, "repo-key": 1}, {"id": 1, "repo-key": 2}]}


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("latest", Target("latest")),
        ("before-deploy=42", Target("point", name="42")),
        ("backup=20261120-113333F", Target("backup", name="20261120-113333F")),
        ("backup=20261120-113333F_20261121-115046I", Target("backup", name="20261120-113333F_20261121-115046I")),
        ("2026-11-20 14:03:00+00", Target("time", time=datetime(2026, 11, 20, 14, 3, tzinfo=UTC))),
        ("2026-11-20T14:03:00Z", Target("time", time=datetime(2026, 11, 20, 14, 3, tzinfo=UTC))),
        ("2026-11-20 14:03", Target("time", time=datetime(2026, 11, 20, 14, 3, tzinfo=UTC))),
        (
            "2026-11-20 14:03:00.5+02",
            Target("time", time=datetime(2026, 11, 20, 14, 3, 0, 500000, timezone(timedelta(hours=2)))),
        ),
    ],
)
def test_the_four_forms_of_a_target(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["yesterday", "before-deploy=", "before-deploy=1;x", "backup=../../x", "42"])
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(SwitchyardError, match="before-deploy=42"):
        parse_target(text)


def test_the_newest_backup_before_the_moment_is_chosen_and_the_nearest_place() -> None:
    info = stanza(("A", NOON, 1), ("B", NOON + timedelta(hours=2), 1), ("C", NOON, 2))
    choice = decide(backup("away"), info, Target("time", time=NOON + timedelta(hours=1)), "", [])
    assert choice.chosen.label == "A"
    assert choice.words == [
        "--repo=1", "--set=A", "--type=time", "--target=2026-11-20 13:00:00.000000+00", "--target-action=promote",
    ]  # fmt: skip
    assert decide(backup("away"), info, Target("latest"), "away", []).chosen.label == "C"


def test_what_nothing_goes_back_to_is_said_with_the_oldest() -> None:
    with pytest.raises(SwitchyardError, match=r"the oldest backup ended at 2026-11-20 12:00:00"):
        decide(backup(), stanza(("A", NOON, 1)), Target("time", time=NOON - timedelta(days=1)), "", [])
    with pytest.raises(SwitchyardError, match="holds no backup"):
        decide(backup(), stanza(), Target("latest"), "", [])
    with pytest.raises(SwitchyardError, match="there are: local, away"):
        decide(backup("away"), stanza(("A", NOON, 1)), Target("latest"), "nowhere", [])


def point(release: str, made: datetime) -> dict[str, Any]:
    return {
        "event": "restore-point",
        "release": release,
        "made": made.isoformat(),
        "timeline": 3,
        "time": made.isoformat(),
    }


def test_a_restore_point_is_reached_by_its_name_on_its_own_timeline() -> None:
    events = [point("0041-1.3.0", NOON), point("0042-1.4.0", NOON + timedelta(hours=1))]
    choice = decide(backup(), stanza(("A", NOON, 1)), Target("point", name="42"), "", events)
    assert "--target=before-deploy-42" in choice.words
    assert "--target-timeline=3" in choice.words
    assert choice.moment == NOON + timedelta(hours=1)
    with pytest.raises(SwitchyardError, match="there are: 41, 42"):
        decide(backup(), stanza(("A", NOON, 1)), Target("point", name="43"), "", events)


def test_a_moment_that_a_restore_left_behind_is_looked_for_on_the_old_timeline() -> None:
    until, at = NOON + timedelta(hours=1), NOON + timedelta(hours=3)
    events = [{"event": "restore", "until": until.isoformat(), "time": at.isoformat(), "timeline": 1}]
    info = stanza(("A", NOON, 1))
    left = decide(backup(), info, Target("time", time=NOON + timedelta(hours=2)), "", events)
    assert "--target-timeline=current" in left.words
    for hours in (0.5, 4):
        kept = decide(backup(), info, Target("time", time=NOON + timedelta(hours=hours)), "", events)
        assert not [word for word in kept.words if "timeline" in word]


def restored(until: float, at: float, label: str = "") -> dict[str, Any]:
    """A restore to `until`, in hours from noon, which was done at `at` from that backup."""
    moments = {key: (NOON + timedelta(hours=hours)).isoformat() for key, hours in (("until", until), ("time", at))}
    return {"event": "restore", "timeline": 1, "backup": label, **moments}


def test_a_backup_of_data_that_a_restore_replaced_leads_to_nothing_later() -> None:
    info = stanza(("A", NOON, 1), ("dead", NOON + timedelta(hours=3), 1), ("B", NOON + timedelta(hours=6), 1))
    events = [point("0042-1.4.0", NOON + timedelta(hours=5)), restored(1, 3.5)]

    def chosen(target: Target) -> str:
        return decide(backup(), info, target, "", events).chosen.label

    def at(hours: float) -> Target:
        return Target("time", time=NOON + timedelta(hours=hours))

    assert [chosen(at(hours)) for hours in (0.5, 3.2, 4, 7)] == ["A", "dead", "A", "B"]
    assert chosen(Target("point", name="42")) == "A"
    assert chosen(Target("backup", name="dead")) == "dead"
    assert chosen(Target("latest")) == "B"
    info = stanza(("A", NOON, 1), ("dead", NOON + timedelta(hours=3), 1))
    assert chosen(Target("latest")) == "A"


def test_a_backup_that_a_restore_took_up_again_is_used() -> None:
    info = stanza(("A", NOON, 1), ("again", NOON + timedelta(hours=2), 1), ("dead", NOON + timedelta(hours=3), 1))
    # To before it, and later to after it: then it is of today's data again.
    events = [restored(1, 3.5), restored(2.5, 4)]
    assert decide(backup(), info, Target("latest"), "", events).chosen.label == "again"
    # The last transaction is older than the end of the very backup that was restored.
    events = [restored(1.9, 4, "again")]
    assert decide(backup(), info, Target("latest"), "", events).chosen.label == "again"


def test_when_every_backup_is_of_data_that_was_replaced_it_is_said() -> None:
    events = [restored(1, 3.5)]
    with pytest.raises(SwitchyardError, match=r"Nothing leads to latest: .*2026-11-20 15:30:00\+00.* backup=LABEL"):
        decide(backup(), stanza(("dead", NOON + timedelta(hours=3), 1)), Target("latest"), "", events)


def test_backups_of_another_cluster_or_with_errors_are_left_out() -> None:
    info = stanza(("A", NOON, 1), ("B", NOON, 1))
    info["backup"][0]["error"] = True
    info["backup"][1]["database"]["id"] = 7
    assert pgbackrest.parse_info(info) == []


def test_an_error_of_pgbackrest_is_one_printable_sentence() -> None:
    text = "[FormatError] unable to load info file '/x/backup.info':\nFormatError: key/value found at line 1: #\x90\xff"
    assert pgbackrest.readable(text).endswith("it is damaged, or the passphrase is another one")
    assert pgbackrest.readable(text).isprintable()
    assert pgbackrest.repository_problems(
        {"repo": [{"key": 1, "status": {"code": 0}}, {"key": 2, "status": {"code": 99, "message": text}}]},
        ["local", "away"],
    ).keys() == {"away"}


def test_a_refusal_of_an_s3_service_is_told_in_its_own_words() -> None:
    text = (
        "ERROR: [039]: unable to load info file '/x/backup.info' or '/x/backup.info.copy':\n"
        "       ProtocolError: HTTP request failed with 403 (Forbidden):\n       authorization: <redacted>\n"
        "       <Error><Code>InvalidAccessKeyId</Code><Message>This key is not in our records.</Message></Error>\n"
    )
    told = "the store refuses (InvalidAccessKeyId): This key is not in our records"
    assert pgbackrest.explain(Completed(39, "", text)) == told
    assert pgbackrest.readable(f"[ProtocolError] {text}") == told


def test_a_repository_that_was_added_later_is_known_to_be_empty() -> None:
    def repo(key: int, code: int) -> dict[str, Any]:
        return {"key": key, "status": {"code": code, "message": ""}}

    names = ["local", "cloud", "away"]
    assert pgbackrest.empty_repositories({"repo": [repo(1, 0), repo(2, 1), repo(3, 99)]}, names) == ["cloud"]
    assert pgbackrest.empty_repositories({"repo": [repo(1, 0), repo(2, 0), repo(3, 2)]}, names) == ["away"]
    assert pgbackrest.empty_repositories({}, names) == names


def test_the_choice_prefers_the_repository_on_the_host() -> None:
    made = [Kept("A", "full", NOON, NOON, 1, 2), Kept("A", "full", NOON, NOON, 1, 1)]
    assert pgbackrest.choose(made, Target("latest")).repository == 1
