"""`switchyard secrets edit|check|rotate|retire`: what people type, and what they read."""

import argparse
import json
from collections.abc import Callable

from switchyard.control import fleet
from switchyard.control.hosts import Environment, load
from switchyard.control.transport import WORK_SECONDS
from switchyard.errors import Exit, SwitchyardError

Members = Callable[[Environment], list[fleet.Member]]


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", members: Members) -> None:
    """Add `secrets edit|check|rotate|retire`; `members` makes the way to an environment's hosts."""
    text = "Edit, check and rotate the secrets of an environment."
    actions = commands.add_parser("secrets", help=text, description=text).add_subparsers(
        required=True, metavar="ACTION", dest="action"
    )
    for name, handler, about in (
        ("edit", _edit, "Open the vault in an editor; makes it, with new passwords, when there is none."),
        ("check", _check, "Say what is missing, weak, unused or not encrypted."),
        ("rotate", _rotate, "Write new values into the vault; without NAME, the database password."),
        ("retire", _retire, "Take the old database password out of use and out of the vault."),
    ):
        child = actions.add_parser(name, help=about, description=about)
        child.add_argument("environment", help="such as staging")
        child.add_argument("--vault-id", action="append", default=[], help="as for ansible-playbook: staging@prompt")
        child.set_defaults(handler=handler, members=members, json=False)
        if name == "rotate":
            child.add_argument("names", nargs="*", metavar="NAME", help="such as vault_postgres_migrate_password")


def _edit(arguments: argparse.Namespace) -> int:
    from switchyard.control.secrets import Vault

    vault = Vault(arguments.environment, arguments.vault_id)
    if vault.create():
        print(f"secrets: made {vault.path}, with new passwords for the database and its backups")
    return vault.edit()


def _check(arguments: argparse.Namespace) -> int:
    from switchyard.control.secrets import Vault

    problems = Vault(arguments.environment, arguments.vault_id).problems()
    print("\n".join(problems) or "secrets: nothing is wrong")
    return int(Exit.FAILED if problems else Exit.OK)


def _rotate(arguments: argparse.Namespace) -> int:
    import yaml

    from switchyard.control.secrets import PASSWORD, Vault, rotated, with_values

    vault = Vault(arguments.environment, arguments.vault_id)
    text = vault.read()
    changed = rotated(yaml.safe_load(text), arguments.names)
    vault.write(with_values(text, changed))
    env = arguments.environment
    print(f"secrets: {', '.join(changed)} changed in the vault. Now, in this order:")
    print(f"  ansible-playbook provision.yml -e env={env}    # the database accepts the new one")
    print(f"  ansible-playbook deploy.yml -e env={env}       # the same version again, with the new one")
    if PASSWORD in changed:
        print(f"  scripts/switchyard secrets retire {env}      # ends the old one, once nothing needs it")
    return 0


def _retire(arguments: argparse.Namespace) -> int:
    import yaml

    from switchyard.control.secrets import OLD, Vault, with_values

    vault = Vault(arguments.environment, arguments.vault_id)
    text = vault.read()
    old = yaml.safe_load(text).get(OLD)
    if not old:
        print("secrets: no old password is left")
        return 0
    environment = load(arguments.environment)
    app = str(environment.name)
    hosts = [member.transport for member in arguments.members(environment) if "app" in member.groups]
    question = json.dumps([old])
    held = {host: fleet.ask(host, ["secret-holders", app, "--json"], question) for host in hosts}
    for host, found in held.items():
        if found["files"] or found["live"] in found["containers"]:
            raise SwitchyardError(
                f"The live release on {host.host} still logs in with the old password: deploy {arguments.environment} "
                "first.",
                Exit.BUSY,
            )
    for host in (host for host, found in held.items() if found["containers"]):
        print(f"secrets: the warm release on {host.host} still has it; starting that again")
        fleet.ask(host, ["refresh", app, "--json"], silence=WORK_SECONDS)
        if fleet.ask(host, ["secret-holders", app, "--json"], question)["containers"]:
            raise SwitchyardError(
                f"Something on {host.host} still holds the old password: 'switchyard status' tells what runs."
            )
    vault.write(with_values(text, {OLD: ""}))
    print("secrets: nothing holds the old password any more. Now close its login and end its sessions:")
    print(f"  ansible-playbook provision.yml -e env={arguments.environment} --tags postgres")
    return 0
