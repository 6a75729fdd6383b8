"""A place for backups that speaks S3: moto's server in this process, with TLS, users, policies and signatures.

It keeps everything in memory and checks who asks, as the real one does: a key that was taken away is refused, and so is
what a key's policy does not allow.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moto import settings
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.load.certificates import certificate

BUCKET, REGION = "switchyard-test", "us-east-1"


class _Handler(WSGIRequestHandler):
    # Connections are kept, and closed as TLS wants it: clients take any other end for a truncated answer.
    protocol_version = "HTTP/1.1"

    def finish(self) -> None:
        """Say goodbye."""
        super().finish()
        with contextlib.suppress(OSError, ValueError):
            self.connection.unwrap()

    def log(self, *_: Any, **__: Any) -> None:
        """Say nothing of each request."""


class Store:
    """Listens on `address` from `with` on."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.authority, self._key = certificate(address)
        self._iam = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
        self._locked_out: dict[str, list[Any]] = {}
        self.port = 0

    def __enter__(self) -> Self:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(BUCKET, REGION)
        # From the first request on, nobody is let in without a valid signature.
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        with tempfile.TemporaryDirectory() as folder:
            public, private = Path(folder) / "crt", Path(folder) / "key"
            public.write_text(self.authority)
            private.write_text(self._key)
            self._server = make_server(
                self.address,
                0,
                DomainDispatcherApplication(create_backend_app),
                threaded=True,
                request_handler=_Handler,
                ssl_context=(str(public), str(private)),
            )
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def admit(self, user: str, *actions: str) -> tuple[str, str]:
        """Have a user who may do this with the bucket; returns a key of theirs and its secret."""
        self._iam.create_user(REGION, user)
        allow = {"Effect": "Allow", "Action": list(actions) or ["s3:*"], "Resource": "*"}
        self._iam.put_user_policy(user, "bucket", json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
        key = self._iam.create_access_key(user)
        return key.access_key_id, key.secret_access_key

    def lock_out(self, user: str) -> None:
        """Know a user's keys no more, as when they were replaced and nobody told the host."""
        keys = self._iam.get_user(user).access_keys
        self._locked_out[user] = list(keys)
        keys.clear()

    def let_in(self, user: str) -> None:
        """Know them again."""
        self._iam.get_user(user).access_keys.extend(self._locked_out.pop(user))

    def objects(self) -> list[str]:
        """The keys of everything in the bucket."""
        return sorted(s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys)

    def repository(self, key: tuple[str, str], name: str = "cloud") -> dict[str, Any]:
        """What the inventory says of it."""
        return {
            "name": name,
            "type": "s3",
            "endpoint": self.address,
            "port": self.port,
            "bucket": BUCKET,
            "region": REGION,
            "uri_style": "path",
            "path": "/switchyard",
            "key": key[0],
            "key_secret": key[1],
            "ca": self.authority,
        }
