"""The database password is rotated under load, and rolled back across; nobody notices, and nothing shows it."""

import json
import os
import time
from pathlib import Path

from switchyard.control.secrets import PASSWORD
from tests.integration.conftest import DRAIN, OLD, Environment
from tests.load import LoadConfig, LoadProcess, mix
from tests.rotation import Rotation


def test_a_password_is_rotated_and_retired_under_load(released: Environment) -> None:
    rotation = Rotation(released.project, released.host)
    # Whatever came before: the version that is rotated is live, with the vault's password.
    rotation.play("deploy", "-e", f"version={OLD}")
    old = rotation.values()[PASSWORD]
    before = released.project.status()["live"]["release"]
    load = LoadProcess(
        LoadConfig(url=released.url, app="parcels", workers=mix("get=6,post=2,new=2"), drain=DRAIN)
    ).start()
    try:
        rotation.secrets("rotate")
        new = rotation.values()[PASSWORD]
        watcher = rotation.watch_processes()
        rotation.play("provision", "--tags", "postgres")
        assert rotation.can_log_in("sample_app_a", old) and rotation.can_log_in("sample_app_b", new)
        rotation.play("deploy", "-e", f"version={OLD}", "-vvv")
        after = released.project.status()["live"]["release"]
        assert after != before, "a changed secret makes a new release"
        assert "sample_app_b" in rotation.logins()

        # Back across the rotation: at once, since the old password is still valid; and forward again.
        rotation.rollback(before)
        time.sleep(1)
        early = released.project.run(
            "scripts/switchyard", "secrets", "retire", "local", "--vault-id", rotation.vault_id
        )
        assert early.returncode == 3 and "still logs in with the old password" in early.stderr, early
        rotation.rollback(after)

        # And the end of the old password: the warm release gets the new one, then the old login is closed.
        assert "starting that again" in rotation.secrets("retire")
        rotation.play("provision", "--tags", "postgres")
        assert not rotation.can_log_in("sample_app_a", old)
        assert rotation.can_log_in("sample_app_b", new)
        assert rotation.logins() == {"sample_app_b"}
        # A rollback is still a flip, to a release from before the rotation, with today's password.
        rotation.rollback(before)
        assert released.project.status()["live"]["release"] == before
        time.sleep(1)
        assert rotation.logins() == {"sample_app_b"}
        seen = rotation.end_watch(watcher)
    finally:
        report = load.stop([])
        rotation.leave()
    traces = [*seen, *rotation.traces([old, new])]
    if name := os.environ.get("SWITCHYARD_ROTATION_REPORT"):
        figures = {"sent": report.sent, "failed": report.lost + report.duplicated, "traces": len(traces)}
        Path(name).write_text(json.dumps(figures))
    assert report.lossless, report.summary()
    assert report.sent > 500
    assert traces == []
