#!/usr/bin/python
"""Has the roles of a database: its owner, the application's login, the migration's login."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_roles
short_description: Have the owner, application and migration roles of a database
version_added: 0.1.0
author: The Switchyard contributors (@switchyard)
description:
  - Makes the roles, their privileges and their session settings in one transaction, through C(psql) in the container.
  - Everything is first run and rolled back; only when that made a difference is it run for good. So check mode tells
    the truth, and a run that changes nothing writes nothing.
  - Passwords become SCRAM verifiers here and travel on standard input, so no clear password reaches a command line or
    the server's log.
options:
  container:
    description: Name of the container that Postgres runs in.
    type: str
    required: true
  superuser:
    description: The superuser of the cluster.
    type: str
    default: postgres
  superuser_password:
    description: The superuser's password.
    type: str
    required: true
  database:
    description: The database.
    type: str
    required: true
  owner:
    description: The role that owns the database and what is in it; it cannot log in.
    type: str
    required: true
  app:
    description: The role with the application's rights, to read and write data. It cannot change the schema, or log in.
    type: str
    required: true
  app_logins:
    description:
      - Passwords of the roles that the application logs in as, by name; each is a member of O(app).
      - One without a password is closed - it cannot log in, and its sessions are ended.
    type: dict
    required: true
  app_settings:
    description: What is set for every session of the application.
    type: dict
    default: {}
  migrate:
    description: The role that migrations log in as; it acts as the owner.
    type: str
    required: true
  migrate_password:
    description: The migrations' password.
    type: str
    required: true
  migrate_settings:
    description: What is set for every session of a migration.
    type: dict
    default: {}
  monitor:
    description: A role that may log in and read statistics, for an exporter; made only with O(monitor_password).
    type: str
    default: ""
  monitor_password:
    description: Its password. Without one the role is left as it is.
    type: str
    default: ""
  pooler:
    description:
      - The role by which a connection pooler asks for the verifiers of O(app_logins), through the function
        C(switchyard.login) in the database; made only with O(pooler_password).
    type: str
    default: ""
  pooler_password:
    description: Its password. Without one the role is left as it is.
    type: str
    default: ""
  replica:
    description: The role by which a replica streams what is written; made only with O(replica_password).
    type: str
    default: ""
  replica_password:
    description: Its password. Without one the role is left as it is.
    type: str
    default: ""
attributes:
  check_mode:
    description: Tells whether anything would change.
    support: full
  diff_mode:
    description: Shows nothing, since verifiers are secrets.
    support: none
"""

EXAMPLES = r"""
- name: Have the roles of the database
  switchyard.stack.postgres_roles:
    container: sample-staging-postgres
    superuser_password: "{{ vault_postgres_superuser_password }}"
    database: sample
    owner: sample_owner
    app: sample_app
    app_logins:
      sample_app_a: "{{ vault_postgres_app_password }}"
      sample_app_b: ""
    migrate: sample_migrate
    migrate_password: "{{ vault_postgres_migrate_password }}"
    migrate_settings:
      lock_timeout: 5s
"""

RETURN = r""" # """

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.switchyard.stack.plugins.module_utils.engine import Docker
from ansible_collections.switchyard.stack.plugins.module_utils.roles_sql import (
    Roles,
    identifier,
    literal,
)
from ansible_collections.switchyard.stack.plugins.module_utils.scram import matches, verifier


class _Database:
    """One database, asked through psql in its container."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def run(self, sql: str) -> list[str]:
        """Run SQL as the superuser and return the lines of its answers."""
        params = self.module.params
        argv = [
            "docker",
            "exec",
            "--interactive",
            params["container"],
            "psql",
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
        ]
        argv += ["--no-align", "--set", "ON_ERROR_STOP=1", "--username", params["superuser"]]
        code, out, err = self.module.run_command([*argv, "--dbname", params["database"]], data=sql)
        if code != 0:
            errors = [line for line in err.splitlines() if "ERROR" in line or "FATAL" in line]
            reason = (errors or err.strip().splitlines() or [f"exit code {code}"])[0]
            self.module.fail_json(msg=f"Postgres in {params['container']} refuses: {reason}")
        return [line for line in str(out).splitlines() if line]

    def stored(self, names: list[str]) -> dict[str, str]:
        """The verifiers that the server holds."""
        listed = ", ".join(literal(name) for name in names)
        query = f"SELECT rolname || ' ' || coalesce(rolpassword, '') FROM pg_authid WHERE rolname IN ({listed});\n"  # noqa: S608 - quoted
        return {line.partition(" ")[0]: line.partition(" ")[2] for line in self.run(query)}


def _transaction(roles: Roles, extra: list[str], end: str) -> str:
    # The statements hold verifiers: keep them out of the log, whatever the server logs of others.
    quiet = ["SET LOCAL log_statement = 'none'", "SET LOCAL log_min_duration_statement = -1"]
    statements = ["BEGIN", *quiet, "SET LOCAL lock_timeout = '5s'", roles.state(), *roles.statements(), *extra]
    return ";\n".join([*statements, roles.state(), end]) + ";\n"


def main() -> None:
    """Try everything, roll back, and do it for good when it made a difference."""
    text: dict[str, Any] = {"type": "str", "required": True}
    secret: dict[str, Any] = {"type": "str", "required": True, "no_log": True}
    module = AnsibleModule(
        argument_spec={
            "container": text,
            "superuser": {"type": "str", "default": "postgres"},
            "superuser_password": secret,
            "database": text,
            "owner": text,
            "app": text,
            "app_logins": {"type": "dict", "required": True, "no_log": True},
            "app_settings": {"type": "dict", "default": {}},
            "migrate": text,
            "migrate_password": secret,
            "migrate_settings": {"type": "dict", "default": {}},
            "monitor": {"type": "str", "default": ""},
            "monitor_password": {"type": "str", "default": "", "no_log": True},
            "pooler": {"type": "str", "default": ""},
            "pooler_password": {"type": "str", "default": "", "no_log": True},
            "replica": {"type": "str", "default": ""},
            "replica_password": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    params, docker = module.params, Docker(module)
    if module.check_mode and (docker.missing or docker.ask("inspect", params["container"])[0] != 0):
        module.exit_json(changed=True)
    database = _Database(module)
    logins = {str(name): str(word or "") for name, word in params["app_logins"].items()}
    passwords = {
        params["superuser"]: params["superuser_password"],
        params["migrate"]: params["migrate_password"],
        **{name: word for name, word in logins.items() if word},
    }
    further = [role for role in ("monitor", "pooler", "replica") if params[f"{role}_password"]]
    passwords |= {params[role]: params[f"{role}_password"] for role in further}
    for name, password in passwords.items():
        if not password.isascii():
            module.fail_json(msg=f"The password of {name} has to be ASCII.")
    stored = database.stored(list(passwords))
    verifiers = {name: verifier(word) for name, word in passwords.items() if not matches(word, stored.get(name, ""))}
    superuser = verifiers.pop(params["superuser"], "")
    extra = [f"ALTER ROLE {identifier(params['superuser'])} PASSWORD {literal(superuser)}"] if superuser else []
    roles = Roles(
        params["database"],
        params["owner"],
        params["app"],
        params["migrate"],
        {name: bool(word) for name, word in logins.items()},
        verifiers,
        {str(name): str(value) for name, value in params["app_settings"].items()},
        {str(name): str(value) for name, value in params["migrate_settings"].items()},
        **{role: params[role] for role in further},
    )
    before, after = database.run(_transaction(roles, extra, "ROLLBACK"))
    changed = before != after or bool(extra)
    if changed and not module.check_mode:
        database.run(_transaction(roles, extra, "COMMIT"))
        if farewell := roles.farewell():
            database.run(";\n".join(farewell) + ";\n")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
