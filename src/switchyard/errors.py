"""The ways an operation can end, as exit codes, and the one exception that carries them to the operator."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the engine, the `switchyard` command and `scripts/rollback.sh`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    BUSY = 3
    PREFLIGHT = 4
    UNHEALTHY = 5
    REVERTED = 6
    MIGRATION = 7
    INTERRUPTED = 8
    INCONCLUSIVE = 9
    UNKNOWN_RELEASE = 10
    ALREADY_LIVE = 11
    NEVER_HEALTHY = 12
    SCHEMA = 13
    UNREACHABLE = 14
    ENGINE_MISMATCH = 15


class SwitchyardError(Exception):
    """Something an operator can act on: one sentence, the fix in it, and how the process should exit."""

    def __init__(self, message: str, code: Exit = Exit.FAILED, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.details = details
        """Longer evidence, such as the tail of a container's log; shown below the sentence."""
