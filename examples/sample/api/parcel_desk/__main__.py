"""Serve the API: `python -m parcel_desk`."""

from __future__ import annotations

import os
import sys

import uvicorn

from parcel_desk.application import create_application
from parcel_desk.logs import log_config
from parcel_desk.settings import Settings
from parcel_desk.values import ConfigurationError

# Longer than the 60 s an edge may keep an idle connection: the edge must be the one that closes, because it
# alone knows whether it is about to send a request.
KEEP_ALIVE_SECONDS = 75
# Longer than the longest request that the API allows (60 s), so that SIGTERM never cuts one.
GRACEFUL_SHUTDOWN_SECONDS = 65


def main() -> None:
    """Run the server until it is told to stop."""
    try:
        settings = Settings.from_environ(os.environ)
    except ConfigurationError as error:
        sys.exit(f"parcel-desk: {error}")
    uvicorn.run(
        create_application(settings),
        host="0.0.0.0",  # noqa: S104 (inside a container; what is published is the operator's decision)
        port=settings.port,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        access_log=False,
        log_config=log_config(),
        server_header=False,
        # Set by the server, not the application, so that its own answers to malformed requests have them too.
        headers=[("X-Service", "api"), ("X-Release", settings.release)],
    )


if __name__ == "__main__":
    main()
