"""Asks both releases each second, as users would: health of every service, and the smoke tests that change nothing."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from switchyard.engine import edge
from switchyard.engine.probe import ask, judge_health, smoke
from switchyard.engine.site import Site
from switchyard.names import other
from switchyard.request import Health, route_owner

BLIND = "the edge does not answer"
"""How `edge.prove_once` begins when there was no answer at all: that is not the release's fault."""
_SECONDS_BETWEEN = 1.0


@dataclass(frozen=True)
class Question:
    """One probe: its name, how it asks the new release, and the old one where that can be compared."""

    name: str
    new: Callable[[], str]
    old: Callable[[], str] | None
    health: bool = False
    """Whether it asks for the health of a service, which tells the edge's silence from the release's."""


@dataclass(frozen=True)
class Found:
    """What one round of a probe showed: what was wrong ('' is nothing), and how long the old release took."""

    name: str
    new: str
    old: str | None
    old_seconds: float
    health: bool = False

    @property
    def blind(self) -> bool:
        """Whether the edge did not answer, so that nothing is known of the release."""
        return self.health and self.new.startswith(BLIND)


def questions(site: Site, logins: Mapping[str, str]) -> list[Question]:
    """Everything that is asked of the release that `site` makes live. `logins` has the smoke tests' secrets by name."""
    live = site.live.request
    previous = site.previous.request if site.previous else None
    asked = []
    for service in live.services:
        new = partial(edge.prove_once, site, site.host, service, set(site.live_targets(service)))
        old = None
        if previous and service in previous.services:
            old = partial(_health, _old_targets(site, service), previous.services[service].health)
        asked.append(Question(f"health of {service}", new, old, health=True))
    for test in live.smoke_tests:
        owner = route_owner(live, test.path)
        if owner is None or not test.repeatable or test.when == "before":
            continue
        login = logins.get(test.login, "")
        old = None
        # A test that is new says nothing about the old release.
        if previous and test in previous.smoke_tests and owner in previous.services:
            old = partial(smoke, _old_targets(site, owner)[0], test, login=login)
        new = partial(edge.smoke_through, site, owner, test, login=login)
        asked.append(Question(f"smoke test {test.method} {test.path}", new, old))
    return asked


def _old_targets(site: Site, service: str) -> list[str]:
    return site.targets(site.previous, service, other(site.pointer.colour)) if site.previous else []


def _health(targets: list[str], health: Health) -> str:
    judged = (judge_health(ask(target, health.path, timeout=health.timeout), health.path) for target in targets)
    return next(filter(None, judged), "")


class Prober:
    """Asks every question about once a second, side by side: a slow one delays no other."""

    def __init__(self, asked: list[Question]) -> None:
        self._asked = {question.name: question for question in asked}
        self._due = dict.fromkeys(self._asked, 0.0)
        self._under_way: set[str] = set()
        self._found: deque[Found] = deque()

    def tick(self) -> list[Found]:
        """Ask what is due, and return what was found out since the last call."""
        found = [self._found.popleft() for _ in range(len(self._found))]
        self._under_way -= {one.name for one in found}
        now = time.monotonic()
        for name, question in self._asked.items():
            if name not in self._under_way and now >= self._due[name]:
                self._due[name] = now + _SECONDS_BETWEEN
                self._under_way.add(name)
                launch(question, self._found.append)
        return found


def launch(question: Question, deliver: Callable[[Found], None]) -> None:
    """Ask without waiting for the answer, which is delivered; nobody waits for it at the end either."""
    threading.Thread(target=lambda: deliver(ask_once(question)), daemon=True).start()


def ask_once(question: Question) -> Found:
    """Ask the new release, and the old one right after it.

    A question that cannot be asked is answered badly: one that fell silent would let the release pass.
    """
    try:
        return _ask(question)
    except Exception as error:
        return Found(question.name, f"{type(error).__name__}: {error}", None, 0.0, question.health)


def _ask(question: Question) -> Found:
    new = question.new()
    if question.old is None:
        return Found(question.name, new, None, 0.0, question.health)
    began = time.monotonic()
    old = question.old()
    return Found(question.name, new, old, time.monotonic() - began, question.health)
