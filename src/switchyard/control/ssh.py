"""Reaches hosts by Fabric, for what must work while Ansible does not: host keys are checked, always."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import fabric
import paramiko
from invoke.exceptions import UnexpectedExit
from paramiko.ssh_exception import NoValidConnectionsError, SSHException

from switchyard.control.transport import SILENCE_SECONDS, Answer, ConnectionLost
from switchyard.errors import Exit, SwitchyardError

_CONNECT_SECONDS = 10
_KEEPALIVE_SECONDS = 5


class FabricTransport:
    """One host over SSH, connected on first use and again after a loss."""

    def __init__(self, host: str, address: str, port: int, user: str, private_key: str, known_hosts: str) -> None:
        self.host = host
        self._address, self._port, self._user = address, port, user
        self._key, self._known_hosts = private_key, known_hosts
        self._connection: fabric.Connection | None = None

    def _connect(self) -> fabric.Connection:
        connect: dict[str, object] = {"allow_agent": not self._key, "look_for_keys": not self._key}
        if self._key:
            connect["key_filename"] = self._key
        connection = fabric.Connection(
            self._address, user=self._user, port=self._port, connect_timeout=_CONNECT_SECONDS, connect_kwargs=connect
        )
        # Fabric would accept any host key; a pinned file, or the user's own known_hosts, decides here.
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        if self._known_hosts:
            connection.client.load_host_keys(str(Path(self._known_hosts).expanduser()))
        else:
            connection.client.load_system_host_keys()
        connection.open()
        connection.client.get_transport().set_keepalive(_KEEPALIVE_SECONDS)
        return connection

    def run(self, argv: Sequence[str], stdin: str = "", silence: float = SILENCE_SECONDS) -> Answer:
        """Run a command on the host; raises `ConnectionLost`, or `SwitchyardError` for a key that does not match."""
        sent = False
        try:
            if self._connection is None:
                self._connection = self._connect()
            sent = True
            return self._exchange(self._connection, shlex.join(argv), stdin, silence)
        except paramiko.BadHostKeyException as error:
            raise SwitchyardError(
                f"{self.host} ({self._address}) shows another host key than the pinned one: if the host was rebuilt, "
                "pin its new key; if not, somebody is in between.",
                Exit.UNREACHABLE,
            ) from error
        except paramiko.AuthenticationException as error:
            raise SwitchyardError(
                f"{self.host} refuses the key of {self._user}: check host_deploy_authorized_keys and the private key.",
                Exit.UNREACHABLE,
            ) from error
        except (SSHException, NoValidConnectionsError, OSError, EOFError, UnexpectedExit) as error:
            self._connection = None
            raise ConnectionLost(str(error) or type(error).__name__, sent=sent) from error

    def _exchange(self, connection: fabric.Connection, command: str, stdin: str, silence: float) -> Answer:
        """Run over a channel of its own: Fabric's own run() sleeps between reads, and a rollback is counted in ms."""
        channel = connection.client.get_transport().open_session(timeout=_CONNECT_SECONDS)
        channel.settimeout(silence)
        channel.exec_command(command)
        if stdin:
            channel.sendall(stdin.encode())
        channel.shutdown_write()
        try:
            out = channel.makefile("rb").read()
            err = channel.makefile_stderr("rb").read()
        except TimeoutError as error:
            self._connection = None
            raise ConnectionLost(f"no answer within {silence:g} s", sent=True) from error
        status = channel.recv_exit_status()
        if status < 0:
            # A connection that is reset ends the output as a command's end does, only without its exit code.
            self._connection = None
            raise ConnectionLost("it broke off before the command had ended", sent=True)
        return Answer(status, out.decode(errors="replace"), err.decode(errors="replace"))
