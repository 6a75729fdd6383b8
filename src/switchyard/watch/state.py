"""What is known of a probation on disk, so that whoever watches next goes on where the last one stopped."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from switchyard.engine.effects import replace_file
from switchyard.engine.layout import AppPaths
from switchyard.errors import SwitchyardError
from switchyard.names import check_operation, parse_release_id
from switchyard.watch.accesslog import Place


@dataclass(frozen=True)
class Probation:
    """One release on probation."""

    op: str
    release: str
    switched_at: float
    """Seconds since 1970: only requests that ended later are judged."""
    seconds: float
    """How long it has to hold in all, from the last step on."""
    place: Place = field(default_factory=Place)
    """Where the log stood at the switch."""
    observed: float = 0.0
    """Seconds of the step that were watched; time in which the host was down does not count."""
    held: int = -1
    """The canary's share at which it has held, in percent, while this edge waits for the others; -1 for none."""
    verdict: str = ""
    reason: str = ""
    ended: str = ""
    """When the verdict fell."""
    canary: bool = False
    """Whether the verdict fell while the release had a share of the clients only."""
    done: bool = False
    """Whether what the verdict asks for was carried out."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Requests, errors and p95 of both releases when it ended."""

    @property
    def goes_back(self) -> bool:
        """Whether the old release gets every client again. A canary that nobody can judge is not for more of them."""
        return self.verdict == "revert" or (self.canary and self.verdict in ("sick", "inconclusive"))

    @property
    def event(self) -> dict[str, Any]:
        """The verdict as the ledger has it."""
        said = {"op": self.op, "release": self.release, "verdict": self.verdict, "reason": self.reason}
        return said | {"seconds": round(self.observed, 1)} | self.figures


def load(paths: AppPaths) -> Probation | None:
    """Read the last probation; None when there was none, or it cannot be understood."""
    try:
        data = json.loads(paths.probation.read_text())
        state = Probation(**{**data, "place": Place(**data["place"])})
        check_operation(state.op)
        return state if parse_release_id(state.release) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SwitchyardError):
        return None


@dataclass(frozen=True)
class Promotion:
    """The next share of the clients, which somebody gave a canary that several hosts hold."""

    release: str
    share: int
    who: str


def promotion(paths: AppPaths) -> Promotion | None:
    """Read the last one; None when there was none, or it cannot be understood."""
    try:
        return Promotion(**json.loads(paths.promotion.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def give(paths: AppPaths, given: Promotion) -> None:
    """Leave it for the operation that leads the canary."""
    replace_file(paths.promotion, json.dumps(asdict(given)) + "\n", step="watch.promotion", mode=0o640)


def save(paths: AppPaths, state: Probation, step: str, **changes: Any) -> Probation:
    """Write it with these fields changed; `step` names the effect."""
    new = replace(state, **changes)
    replace_file(paths.probation, json.dumps(asdict(new)) + "\n", step=f"watch.{step}", mode=0o640)
    return new
