"""From what the inventory says of backups to the files that a host gets. Pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from switchyard.control import standby
from switchyard.data import repositories
from switchyard.data.settings import Backup, parse
from switchyard.engine.layout import STATE
from switchyard.errors import Exit, SwitchyardError

_DRILL = (
    "noticing_seconds",
    "deciding_seconds",
    "rto_limit_seconds",
    "rpo_limit_seconds",
    "max_age_days",
    "memory_mb",
    "row_tolerance_percent",
)
_ENGINE = "/usr/local/sbin/switchyard"
_HEAD = "# Placed by Switchyard's role backup; changes here are overwritten."


def from_inventory(values: Mapping[str, Any], *, replica: bool = False) -> dict[str, Any]:
    """The role's variables as it gathers them itself, from those of the inventory; for checks without a host."""
    own = {name.removeprefix("backup_"): value for name, value in values.items() if name.startswith("backup_")}
    drill = {name.removeprefix("drill_"): value for name, value in own.items() if name.startswith("drill_")}
    return {
        **own,
        **drill,
        "app": values["app_name"],
        "environment": values["app_environment"],
        "database": values["postgres_database"],
        "uid": values["postgres_uid"],
        "settings": values["postgres_settings"],
        "data_path": "/",
        "pgdata": "/",
        "services": values["app_services"],
        "shared_volumes": values["app_shared_volumes"],
        "replica": replica,
    }


def given(variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every repository with its secrets, the one on the host first; a replica's host has none of its own."""
    passphrase = variables["passphrase"]
    if not passphrase:
        raise SwitchyardError(
            "backup_passphrase is not set: put a long random text into the vault, and keep a copy of it elsewhere, or "
            "set backup_enabled to false.",
            Exit.USAGE,
        )
    off_site = [{key: value for key, value in one.items() if value is not None} for one in variables["repositories"]]
    defaults = {"passphrase": passphrase, "path": "/switchyard"}
    local = [] if variables["replica"] else [{"name": "local", "type": "local", "passphrase": passphrase}]
    return [*local, *({**defaults, **one} for one in off_site)]


def build(variables: Mapping[str, Any]) -> Backup:
    """The settings of a host's backup; raises `SwitchyardError` naming the variable and the rule."""
    services, identity = variables["services"], _identity(variables)
    data = {
        "app": variables["app"],
        "environment": variables["environment"],
        "image": variables["image"],
        "database": variables["database"],
        "uid": int(variables["uid"]),
        "data_path": variables["data_path"],
        "pgdata": variables["pgdata"],
        "directory": variables["directory"],
        "retention_days": int(variables["retention_days"]),
        "process_max": int(variables["process_max"]),
        "settings": {str(key): str(value) for key, value in variables["settings"].items()},
        "volumes": _volumes(variables),
        "repositories": [repositories.public(one) for one in given(variables)],
        "deploy_needs_drill_days": int(variables["deploy_needs_drill_days"]),
        "dump_max_age_days": int(variables["dump_max_age_days"]),
        "replica": bool(variables["replica"]),
        "standby": identity.address if identity else "",
        "drill": {key: int(variables[key]) for key in _DRILL}
        | {
            "assertions": [{"name": one["name"], "sql": one["sql"]} for one in variables["assertions"]],
            "start_application": bool(variables["start_application"]),
            "application_services": sorted(name for name, one in services.items() if one.get("database")),
        },
    }
    return parse(data, "backup_")


def _volumes(variables: Mapping[str, Any]) -> list[str]:
    """Where the application's uploaded files lie, as `compose/app.yml.j2` mounts them."""
    names = {volume for service in variables["services"].values() for volume in service.get("volumes") or {}}
    folder = f"{STATE}/{variables['app']}-{variables['environment']}/volumes"
    return sorted(str(variables["shared_volumes"].get(name) or f"{folder}/{name}") for name in names)


def _identity(variables: Mapping[str, Any]) -> standby.Identity | None:
    text = str(variables["replica_identity"])
    return standby.parse(text) if text else None


def placing(variables: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The directories and files as `switchyard.stack.place` takes them."""
    backup = build(variables)
    database = {"owner": str(backup.uid), "group": str(backup.uid)}
    directory = backup.directory
    directories: list[dict[str, str]] = [
        {"path": "/etc/switchyard/backup"},
        {"path": folder, "mode": "0711"},
        {"path": f"{folder}/restic", "mode": "0700"},
        {"path": f"{folder}/spool", "mode": "0700", **database},
        *({"path": f"{folder}/pgbackrest{below}", "mode": "0500", **database} for below in ("", "/conf.d", "/keys")),
        {"path": directory, "mode": "0711"},
        {"path": f"{directory}/pgbackrest", "mode": "0700", **database},
        {"path": f"{directory}/dumps", "mode": "0700", **database},
        {"path": f"{directory}/files", "mode": "0700"},
    ]
    settings = json.dumps(asdict(backup), indent=1, sort_keys=True)
    files: list[dict[str, Any]] = [{"path": f"/etc/switchyard/backup/{backup.name}.json", "content": settings + "\n"}]
    identity = _identity(variables)
    pair = repositories.standby_files(identity.certificate, identity.key) if identity else []
    for file in [*repositories.files(backup, given(variables)), *pair]:
        owner = {} if file.root else database
        files.append(
            {"path": f"{folder}/{file.path}", "content": file.text, "mode": "0400", "secret": file.secret, **owner}
        )
    return {"directories": directories, "files": files}


def units(jobs: Mapping[str, Mapping[str, Any]], name: str) -> list[dict[str, str]]:
    """A service and a timer for each job, and a target that holds the timers together."""
    prefix = f"switchyard-backup-{name}"
    result = []
    for job, how in jobs.items():
        unit = f"{prefix}-{job}"
        service = f"""{_HEAD}
[Unit]
Description={how["text"]} ({name})
After=docker.service switchyard-recover.service

[Service]
Type=oneshot
ExecStart={_ENGINE} backup-job {job} {name}
Nice=10
TimeoutStartSec={"50" if job == "heartbeat" else "6h"}
"""
        timer = f"""{_HEAD}
[Unit]
Description={how["text"]} ({name})
PartOf={prefix}.target

[Timer]
OnCalendar={how["at"]} UTC
RandomizedDelaySec={how["jitter"]}
AccuracySec=1s
Persistent={"false" if job in ("heartbeat", "archive") else "true"}
"""
        result += [
            {"path": f"/etc/systemd/system/{unit}.service", "content": service},
            {"path": f"/etc/systemd/system/{unit}.timer", "content": timer},
        ]
    wants = " ".join(f"{prefix}-{job}.timer" for job in jobs)
    target = f"""{_HEAD}
[Unit]
Description=Backups of {name}
Wants={wants}
After={wants}

[Install]
WantedBy=timers.target
"""
    return [*result, {"path": f"/etc/systemd/system/{prefix}.target", "content": target}]
